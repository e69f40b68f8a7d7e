"""Tests run side by side, so each keeps to one thread, and none fails for taking long."""

import os

import hypothesis

os.environ["OMP_NUM_THREADS"] = "1"

hypothesis.settings.register_profile("shared machine", deadline=None)
hypothesis.settings.load_profile("shared machine")
