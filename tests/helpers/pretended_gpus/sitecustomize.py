"""Have the jobs of a test run with GPUs that are only names: Python imports this file when it starts."""

import os
import sys

if {"prefline.machine.lease_gpus", "prefline.machine.launch"} & set(sys.orig_argv):
    sys.path.insert(0, os.getcwd())
    from prefline.machine import device

    device.refuse = lambda names, opened=False: None
