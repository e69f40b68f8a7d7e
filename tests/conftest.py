"""Tests run side by side, so each keeps to one thread."""

import os

os.environ["OMP_NUM_THREADS"] = "1"
