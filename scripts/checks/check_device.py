"""Tell which GPU jobs get, and which driver, torch and vLLM use it, before any of them reads a model.

The job holds a GPU as all others do, on the same kind of machine. A GPU that torch or vLLM cannot use ends it
before this script starts (prefline/machine/lease_gpus.py). A machine that gives it none is reported: jobs
compute on the CPU there. A card with less memory than machine.gpu_memory, which sizes jobs, is refused.

    python -m prefline.machine.lease_gpus 1 python -m scripts.checks.check_device --needs-vllm \\
        --gpu-memory 80 --out results/checks/device/gpu.json

    writes  found, a sentence
"""

import os

from prefline import errors, files
from prefline.config import section
from prefline.errors import InputError
from prefline.machine import device, gpus

GB = 1e9
GIB = 2**30
# Cards have a few percent less than their names, for error correction.
LEAST = 0.9


def sentence(found):
    """Return what device.Facts tell, as a sentence (str)."""
    if not found.gpus:
        return "jobs with a GPU get none here, so they compute on the CPU"
    cards = [f"{card.name} ({card.memory / GB:.0f} GB)" for card in found.cards or ()]
    said = [", ".join(cards) or f"GPU {', '.join(found.gpus)}"]
    if found.driver_cuda:
        said.append(f"driver {found.driver or 'of unknown version'} for CUDA {found.driver_cuda}")
    if found.torch:
        said.append(f"torch {found.torch}")
    return ", ".join([*said, *([f"vLLM {found.vllm}"] if found.vllm else [])])


def check_memory(found, gpu_memory):
    """Raise InputError if a card of device.Facts has less memory than machine.gpu_memory, None for any."""
    for card in found.cards or ():
        if gpu_memory is not None and card.memory < LEAST * gpu_memory * GIB:
            raise InputError(
                f"machine.gpu_memory is {gpu_memory:g}, and jobs get a {card.name} "
                f"with {card.memory / GIB:.0f} GB; set what the card has, or ask for a larger one"
            )


def main(argv=None):
    parser = section.parser(__doc__)
    parser.add_argument("--needs-vllm", action="store_true", help="whether jobs run models by vLLM")
    section.add(parser, "machine", "gpu_memory")
    parser.add_argument("--out", required=True, help="what was found (json)")
    args = parser.parse_args(argv)

    found = device.facts(gpus.installed(os.environ), opened=True)
    if args.needs_vllm and found.vllm is None:
        raise InputError(f"jobs of this config run models by vLLM, which is not installed; {device.INSTALL}")
    check_memory(found, args.gpu_memory)
    said = sentence(found)
    print(said)
    files.write_json(args.out, {"found": said})


if __name__ == "__main__":
    errors.run(main)
