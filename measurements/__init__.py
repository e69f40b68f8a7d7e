"""Measurements, one module each; `python -m measurements.NAME` prints its table."""
