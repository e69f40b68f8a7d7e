"""Measurements, one module each; `python -m benchmarks.NAME` prints its table."""
