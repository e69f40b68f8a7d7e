"""Precompute reference log-probabilities."""
