"""The environment that a job ran in under `snakemake --sdm conda`, known by what its file says.

Snakemake's own hash of it holds the folder in which it is installed too, or the name of the image, so that in
a clone every environment would be another one and everything would run again.
"""

import base64
import hashlib
import os
from pathlib import Path

from prefline.errors import InputError

# Snakemake's hash of no environment at all.
NONE = hashlib.md5(usedforsecurity=False).hexdigest()
# Names the images of `--sdm conda apptainer`. They are files: Snakemake asks them for their conda before it
# would pull them, and nobody should run an image that they have not chosen.
IMAGE_VARIABLE = "PREFLINE_IMAGE"


def text_of(made):
    """The text (bytes) of the environment file that the rule of a job names (`made`: its metadata, dict)."""
    return base64.b64decode(made["conda_env"] or "")


def portable(made):
    """Snakemake's software_stack_hash of a job that ran, as the sha256 of the environment's text."""
    if made["software_stack_hash"] == NONE:
        return NONE
    return hashlib.sha256(text_of(made)).hexdigest()


def images(methods, hardware):
    """{"cpu": file, "cuda": file} of the images to run rules in, {} where rules run in none.

    methods: Snakemake's ways of deployment, as `--sdm` gives them; hardware: of which images are needed.
    Raises InputError for images without the environments in them, and for files that are not there.
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
                "your image files with {hardware} in place of cpu and cuda: /images/prefline-{hardware}.sif"
            )
    return found


def here(conda_prefix, images):
    """{portable hash: Snakemake's software_stack_hash} of the environments that are under envs/ now.

    conda_prefix: the folder that they are installed in; None for the one that Snakemake chooses by itself.
    images: as the function of this name gives them. An environment with the same text for CPU and CUDA is
    taken as the CPU's, as few rules without models are given a GPU.
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
