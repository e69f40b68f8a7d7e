"""One folder per step, one script per rule, run from the root as `python -m scripts.STEP.NAME`."""
