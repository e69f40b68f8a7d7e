"""Write envs/cpu/*.yaml and envs/cuda/*.yaml for `snakemake --sdm conda`, and envs/cuda.lock.txt.

Only two files are edited by hand: envs/direct.toml names what each kind of rule imports, and
envs/cpu.lock.txt has one version of everything. Snakemake runs a rule again when the text of its environment
file changes, and a list that the file refers to is not part of that text. So each file lists all packages,
dependencies included, with exact versions. Versions that are not in the lock (CUDA's packages and vLLM's) are
taken from the present file while they fit. `make .venv DEVICE=cuda` installs envs/cuda.lock.txt: one
environment for all rules, with the versions of the others.

    python -m tools.lock_envs        (asks the package index for metadata, downloads no package)
"""

import re
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

import yaml

from prefline import errors, files
from prefline.config import section
from prefline.errors import InputError

DIRECT = Path("envs/direct.toml")
LOCK = Path("envs/cpu.lock.txt")
CUDA_LOCK = Path("envs/cuda.lock.txt")
HARDWARE = ("cpu", "cuda")
# Wheels only, but for what direct.toml calls `built`; for glibc 2.31 or newer, as vLLM asks for it.
PLATFORM = "x86_64-manylinux_2_31"
CPU_TORCH = "https://download.pytorch.org/whl/cpu"


def direct():
    """Return (dict, list of str): the contents of direct.toml, and the names of its environments in order."""
    wanted = tomllib.loads(DIRECT.read_text())
    return wanted, [name for name, value in wanted.items() if "packages" in value]


def requirements(wanted, name, hardware):
    """Return the direct requirements (list of str) of one environment, for "cpu" or "cuda"."""
    torch = f"torch=={wanted['torch']}{'+cpu' if hardware == 'cpu' else ''}"
    packages = [torch if package == "torch" else package for package in wanted[name]["packages"]]
    return packages + (wanted[name].get("cuda", []) if hardware == "cuda" else [])


def name_of(requirement):
    """Return the package of a requirement, spelt as the index spells it: jinja2 for Jinja2==3.1.6."""
    return re.match(r"[\w.-]+", requirement)[0].lower().replace("_", "-").replace(".", "-")


def lock(path=LOCK, marked=True):
    """Return the pins (list of str) of a lock for `make .venv`, without their markers.

    marked: those with a marker, too (vLLM's for the CPU, and extras).
    """
    lines = [line for line in Path(path).read_text().splitlines() if line and not line.startswith("#")]
    return [line.split(";")[0].strip() for line in lines if marked or ";" not in line]


def pins(path):
    """Return the pip packages (list of str, NAME==VERSION) of an environment file; [] if it is missing."""
    if not Path(path).exists():
        return []
    parts = yaml.safe_load(Path(path).read_text())["dependencies"]
    listed = next(part["pip"] for part in parts if isinstance(part, dict))
    return [line for line in listed if not line.startswith("-")]


def conda_pins(path):
    """Return what conda itself installs (list of str, NAME==VERSION) for an environment file."""
    parts = yaml.safe_load(Path(path).read_text())["dependencies"]
    return [part.replace("=", "==") for part in parts if isinstance(part, str)]


def resolve(requirements, python, present, built, overrides=(), platform=PLATFORM):
    """Return everything that `requirements` need, as sorted pins (list of str).

    A version that `requirements` do not pin comes from the lock if it has the package. python: str, version;
    present: list of str, pins to keep if they fit; built: list of str, packages without wheels; overrides:
    list of str, what replaces other packages' requirements; platform: str, as uv names it. Raises InputError
    if there is no such set or no package index.
    """
    with tempfile.TemporaryDirectory() as folder:
        names = ("wanted.in", "locked.txt", "overrides.txt", "pins.txt")
        wanted, locked, replaced, out = (Path(folder, name) for name in names)
        wanted.write_text("\n".join(requirements))
        replaced.write_text("\n".join(overrides))
        given = {name_of(requirement) for requirement in requirements if "==" in requirement}
        locked.write_text("\n".join(pin for pin in lock() if name_of(pin) not in given))
        command = ["uv", "pip", "compile", "--quiet", "--no-header", "--no-annotate", "--only-binary=:all:"]
        command += [f"--no-binary={package}" for package in built]
        command += [f"--python-version={python}", f"--python-platform={platform}"]
        command += [f"--constraints={locked}", f"--overrides={replaced}", f"--output-file={out}", str(wanted)]
        for source in _sources(requirements):
            out.write_text("\n".join(present))
            process = subprocess.run([*command, *source], capture_output=True, text=True, check=False)
            if process.returncode == 0:
                return sorted(out.read_text().split())
    raise InputError(f"no set of packages fits {DIRECT} and {LOCK}:\n{process.stderr.strip()}")


def resolve_all(wanted, names, present, platform=PLATFORM):
    """Return the pins (list of str) of one environment for all rules and tools, on CUDA; see `resolve`."""
    cuda = {package for name in names for package in wanted[name].get("cuda", [])}
    requirements = [f"torch=={wanted['torch']}", *sorted(cuda), *lock(marked=False)]
    absent = {package for name in names for package in wanted[name].get("unlocked", [])}
    absent |= set(wanted["unused"])
    overrides = [*wanted["refused"], *(f"{package} ; sys_platform == 'none'" for package in sorted(absent))]
    return resolve(requirements, wanted["python"], present, wanted["built"], overrides, platform)


def _sources(requirements):
    """Return the package indexes to try in turn, as uv's options: first the one pip is configured for."""
    if not any("+cpu" in requirement for requirement in requirements):
        return [[]]
    pip = subprocess.run(
        [sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=True
    )
    folders = {word for line in re.findall(r"\.find-links='(.*)'", pip.stdout) for word in line.split()}
    configured = [option for folder in sorted(folders) for option in ("--find-links", folder)]
    return [configured, ["--torch-backend", "cpu"]] if configured else [["--torch-backend", "cpu"]]


def environment(wanted, name, pins):
    """Return the text of an environment file: no aligned or commented pins, since it is hashed."""
    lines = [
        f"# {wanted[name]['about']}",
        "# Made by `make envs` from envs/direct.toml and envs/cpu.lock.txt: make changes there.",
        "channels:",
        "  - conda-forge",
        "  - nodefaults",
        "dependencies:",
        f"  - python={wanted['python']}",
        f"  - pip={wanted['pip']}",
        "  - pip:",
    ]
    if any(pin.endswith("+cpu") for pin in pins):
        lines.append(f"      - --extra-index-url {CPU_TORCH}")
    return "\n".join(lines + [f"      - {pin}" for pin in pins]) + "\n"


def cuda_lock(pins, extras):
    """Return the text of the lock for `make .venv DEVICE=cuda`: what an extra needs has it as its marker."""
    return "\n".join(
        [
            "# Every package of the CUDA environment, exactly; `make .venv DEVICE=cuda` installs them.",
            "# Made by `make envs` from envs/direct.toml and envs/cpu.lock.txt: make changes there.",
            *pins,
            "# For EXTRAS: compiled where a CUDA toolkit is.",
            *(f"{pin} ; extra == '{name}'" for name, listed in extras.items() for pin in listed),
            "",
        ]
    )


def main(argv=None):
    parser = section.parser(__doc__)
    parser.parse_args(argv)
    wanted, names = direct()
    for hardware in HARDWARE:
        for name in names:
            path = f"envs/{hardware}/{name}.yaml"
            packages = resolve(
                requirements(wanted, name, hardware), wanted["python"], pins(path), wanted["built"]
            )
            files.write_text(path, environment(wanted, name, packages))
    present = {name_of(pin): pin for pin in lock(CUDA_LOCK, marked=False)}
    present |= {name_of(pin): pin for name in names for pin in pins(f"envs/cuda/{name}.yaml")}
    packages = resolve_all(wanted, names, list(present.values()))
    files.write_text(CUDA_LOCK, cuda_lock(packages, wanted["extras"]))


if __name__ == "__main__":
    errors.run(main)
