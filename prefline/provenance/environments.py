"""Identify the environment that a job ran in under `snakemake --sdm conda` by its file's text.

Snakemake's own hash also covers the folder of the installation, or the name of the image. So in a clone every
environment would differ, and everything would run again.
"""

import base64
import hashlib
import os
from pathlib import Path

from prefline.errors import InputError

# Snakemake's hash of no environment at all.
NONE = hashlib.md5(usedforsecurity=False).hexdigest()
# The variable that names the images of `--sdm conda apptainer`. They must be files: Snakemake runs conda in
# them before it would pull them, and users should run only images that they have chosen.
IMAGE_VARIABLE = "PREFLINE_IMAGE"


def text_of(made):
    """Return the text (bytes) of the environment file of a job's rule (`made`: the job's metadata, dict)."""
    return base64.b64decode(made["conda_env"] or "")


def portable(made):
    """Return Snakemake's software_stack_hash of a job that ran, as the sha256 of the environment's text."""
    if made["software_stack_hash"] == NONE:
        return NONE
    return hashlib.sha256(text_of(made)).hexdigest()


def images(methods, hardware):
    """Return {"cpu": file, "cuda": file} of the images that rules run in; {} without images.

    methods: Snakemake's deployment methods, as `--sdm` gives them; hardware: the kinds of images needed.
    Raises InputError for images without `conda` among the methods, and for missing files.
    """
    methods = {str(method) for method in methods}
    if "apptainer" not in methods:
        return {}
    if "conda" not in methods:
        raise InputError("the images hold conda environments; use --sdm conda apptainer")
    named = os.environ.get(IMAGE_VARIABLE, "")
    found = {which: named.replace("{hardware}", which) for which in sorted(hardware)}
    for image in found.values():
        if "{hardware}" not in named or " " in named or not Path(image).is_file():
            raise InputError(
                f"--sdm apptainer: {IMAGE_VARIABLE} is {named!r}, and there is no file {image!r}; set it to "
                "your image files, with {hardware} for cpu and cuda: /images/prefline-{hardware}.sif"
            )
    return found


def here(conda_prefix, images):
    """Return {portable hash: Snakemake's software_stack_hash} of the environments under envs/.

    conda_prefix: the folder that they are installed in; None for Snakemake's default. images: as `images`
    returns them. An environment with the same text for CPU and CUDA counts as the CPU's, since few rules
    without models get a GPU.
    """
    folder = os.path.realpath(conda_prefix or ".snakemake/conda").encode()
    known = {}
    for path in sorted(Path("envs").glob("*/*.yaml"), reverse=True):
        text = path.read_bytes()
        stack = _md5(text) if images else _md5(folder + text)
        stack += images.get(path.parent.name, "")
        known[hashlib.sha256(text).hexdigest()] = _md5(stack.encode())
    return known


def _md5(text):
    return hashlib.md5(text, usedforsecurity=False).hexdigest()
