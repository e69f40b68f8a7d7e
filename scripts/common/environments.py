"""The environment that a job ran in under `snakemake --sdm conda`, known by what its file says.

Snakemake's own hash of it holds the folder in which it is installed too, so that in a clone every environment
would be another one and everything would run again.
"""

import base64
import hashlib
import os
from pathlib import Path

# Snakemake's hash of no environment at all.
NONE = hashlib.md5(usedforsecurity=False).hexdigest()


def text_of(made):
    """The text (bytes) of the environment file that the rule of a job names (`made`: its metadata, dict)."""
    return base64.b64decode(made["conda_env"] or "")


def portable(made):
    """Snakemake's software_stack_hash of a job that ran, as the sha256 of the environment's text."""
    if made["software_stack_hash"] == NONE:
        return NONE
    return hashlib.sha256(text_of(made)).hexdigest()


def here(conda_prefix):
    """{portable hash: Snakemake's software_stack_hash} of the environments that are under envs/ now.

    conda_prefix: the folder that they are installed in; None for the one that Snakemake chooses by itself.
    """
    folder = os.path.realpath(conda_prefix or ".snakemake/conda").encode()
    known = {}
    for path in Path("envs").glob("*/*.yaml"):
        text = path.read_bytes()
        installed = hashlib.md5(folder + text, usedforsecurity=False).hexdigest()
        stack = hashlib.md5(installed.encode(), usedforsecurity=False).hexdigest()
        known[hashlib.sha256(text).hexdigest()] = stack
    return known
