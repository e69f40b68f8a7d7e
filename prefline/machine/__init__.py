"""Distribute this machine's devices, and tell its faults from the user's."""
