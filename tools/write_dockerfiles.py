"""Write containers/cpu.Dockerfile and containers/cuda.Dockerfile: images with the environments of the rules.

`snakemake --containerize` prints a Dockerfile with the conda environment of every rule, each under the hash
that `snakemake --sdm conda apptainer` looks for. It is printed twice, as for a machine without GPUs and as if
every rule had one: this gives an image for envs/cpu and one for envs/cuda. This script changes four things:

    python -m tools.write_dockerfiles --out containers        (conda on the PATH, as for --sdm conda)
"""

import re
import subprocess

from prefline import errors, files
from prefline.config import section
from prefline.errors import InputError

BASE = "condaforge/miniforge3:25.9.1-0"
COMPILER = """\
RUN apt-get update \\
    && apt-get install --yes --no-install-recommends gcc g++ libc6-dev \\
    && rm -rf /var/lib/apt/lists/*
ENV PIP_NO_CACHE_DIR=1
"""
# Docker runs as this user; Apptainer runs as the one who starts it.
NOT_ROOT = """\

RUN useradd --create-home --uid 1001 prefline
USER 1001
"""
HARDWARE = {"cpu": [], "cuda": ["--default-resources", "gpu=1", "--resources", "gpu=1"]}


def containerize(options):
    """Return the Dockerfile (str) that Snakemake prints with `options`; InputError if it does not."""
    command = ["snakemake", "--containerize", *options]
    process = subprocess.run(command, capture_output=True, text=True, check=False)
    if process.returncode != 0 or "conda env create" not in process.stdout:
        raise InputError(f"`{' '.join(command)}` fails: {process.stderr.strip()[-1000:]}")
    return process.stdout


def dockerfile(printed, hardware):
    """Return the Dockerfile (str) of envs/{hardware}, of what Snakemake `printed` (str)."""
    made = ["# Made by `make containers` from envs/: make changes there.", f"FROM {BASE}"]
    made += COMPILER.splitlines()
    environments = printed.split("\n\nRUN conda env create")[0].split("\n# Conda environment:\n")[1:]
    for text in environments:
        if f"source: envs/{hardware}/" not in text:
            continue
        folder = re.search(r"^COPY \S+ (/conda-envs/\w+)/environment\.yaml$", text, re.M)[1]
        made += [
            "",
            *text.strip().splitlines(),
            f"RUN conda env create --prefix {folder} --file {folder}/environment.yaml \\",
            "    && conda clean --all --yes",
        ]
    return "\n".join(made) + "\n" + NOT_ROOT


def main(argv=None):
    parser = section.parser(__doc__)
    parser.add_argument("--out", required=True, help="folder to write them to")
    args = parser.parse_args(argv)
    for hardware, options in HARDWARE.items():
        files.write_text(f"{args.out}/{hardware}.Dockerfile", dockerfile(containerize(options), hardware))


if __name__ == "__main__":
    errors.run(main)
