"""Write containers/cpu.Dockerfile and containers/cuda.Dockerfile: images with the environments of the rules.

`snakemake --containerize` prints a Dockerfile with the conda environment of every rule, each under the hash
by which `snakemake --sdm conda apptainer` looks for it. Printed once as for a machine without GPUs and once
as if every rule were given one, that makes an image for each of envs/cpu and envs/cuda. What is changed: the
base image has a version; a C compiler is added for Triton, which builds parts of vLLM and torch when they
run; each environment has a layer of its own, since a registry refuses layers above 10 GB; and rules that get
no GPU anywhere, which run in the CPU's image, have no place in CUDA's.

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
HARDWARE = {"cpu": [], "cuda": ["--default-resources", "gpu=1", "--resources", "gpu=1"]}


def containerize(options):
    """The Dockerfile (str) that Snakemake prints with `options`; InputError if it does not."""
    command = ["snakemake", "--containerize", *options]
    process = subprocess.run(command, capture_output=True, text=True, check=False)
    if process.returncode != 0 or "conda env create" not in process.stdout:
        raise InputError(f"`{' '.join(command)}` fails: {process.stderr.strip()[-1000:]}")
    return process.stdout


def dockerfile(printed, hardware):
    """The Dockerfile (str) of envs/{hardware}, of what Snakemake `printed` (str)."""
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
    return "\n".join(made) + "\n"


def main(argv=None):
    parser = section.parser(__doc__)
    parser.add_argument("--out", required=True, help="folder to write them to")
    args = parser.parse_args(argv)
    for hardware, options in HARDWARE.items():
        files.write_text(f"{args.out}/{hardware}.Dockerfile", dockerfile(containerize(options), hardware))


if __name__ == "__main__":
    errors.run(main)
