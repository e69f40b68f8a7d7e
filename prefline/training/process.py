"""The processes that train together, one for each device, as set by the launcher (torchrun, accelerate)."""

import os


def world_size():
    """Return the number of processes (int)."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def rank():
    """Return the number of this one (int), from 0."""
    return int(os.environ.get("RANK", "0"))


def is_main():
    """Tell whether this process is the one that writes."""
    return rank() == 0


def quiet():
    """Stop progress bars, advice and telemetry of the libraries: people read the log."""
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
