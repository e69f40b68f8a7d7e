"""Write the environments of `snakemake --sdm conda`: envs/cpu/*.yaml and envs/cuda/*.yaml.

By hand stand only the names of what each kind of rule imports (envs/direct.toml) and one version of
everything (envs/cpu.lock.txt). Snakemake runs a rule again when the text of its environment file changes, and
a list that the file only refers to is not part of that text. So each file holds all of its packages itself,
with exact versions and those that others need included. Versions that are not in the lock (of CUDA's packages
and vLLM's) stay as they are in the present file for as long as they fit.

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
HARDWARE = ("cpu", "cuda")
# Wheels only, but for what direct.toml calls `built`; for glibc 2.31 or newer, as vLLM asks for it.
PLATFORM = "x86_64-manylinux_2_31"
CPU_TORCH = "https://download.pytorch.org/whl/cpu"


def direct():
    """What stands in direct.toml, and the names of its environments in order: (dict, list of str)."""
    wanted = tomllib.loads(DIRECT.read_text())
    return wanted, [name for name, value in wanted.items() if isinstance(value, dict)]


def requirements(wanted, name, hardware):
    """The direct requirements (list of str) of one environment, for "cpu" or "cuda"."""
    torch = f"torch=={wanted['torch']}{'+cpu' if hardware == 'cpu' else ''}"
    packages = [torch if package == "torch" else package for package in wanted[name]["packages"]]
    return packages + (wanted[name].get("cuda", []) if hardware == "cuda" else [])


def name_of(requirement):
    """The package of a requirement, spelt as the index spells it: jinja2 for Jinja2==3.1.6."""
    return re.match(r"[\w.-]+", requirement)[0].lower().replace("_", "-").replace(".", "-")


def lock():
    """The pins (list of str) of the lock for `make .venv`, without their markers."""
    lines = [line.split(";")[0].strip() for line in LOCK.read_text().splitlines()]
    return [line for line in lines if line and not line.startswith("#")]


def pins(path):
    """The pip packages (list of str, NAME==VERSION) of an environment file; of one that is missing, none."""
    if not Path(path).exists():
        return []
    parts = yaml.safe_load(Path(path).read_text())["dependencies"]
    listed = next(part["pip"] for part in parts if isinstance(part, dict))
    return [line for line in listed if not line.startswith("-")]


def resolve(requirements, python, present, built):
    """Everything that `requirements` need, as sorted pins (list of str).

    A version that `requirements` do not give is the lock's, for a package that the lock has.
    python: str, version; present: list of str, pins that stay where they fit; built: list of str, packages
    that have no wheels. Raises InputError where there is no such set, or no package index.
    """
    with tempfile.TemporaryDirectory() as folder:
        wanted, locked, out = (Path(folder, name) for name in ("wanted.in", "locked.txt", "pins.txt"))
        wanted.write_text("\n".join(requirements))
        given = {name_of(requirement) for requirement in requirements if "==" in requirement}
        locked.write_text("\n".join(pin for pin in lock() if name_of(pin) not in given))
        command = ["uv", "pip", "compile", "--quiet", "--no-header", "--no-annotate", "--only-binary=:all:"]
        command += [f"--no-binary={package}" for package in built]
        command += [f"--python-version={python}", f"--python-platform={PLATFORM}"]
        command += [f"--constraints={locked}", f"--output-file={out}", str(wanted)]
        for source in _sources(requirements):
            out.write_text("\n".join(present))
            process = subprocess.run([*command, *source], capture_output=True, text=True, check=False)
            if process.returncode == 0:
                return sorted(out.read_text().split())
    raise InputError(f"no set of packages fits {DIRECT} and {LOCK}:\n{process.stderr.strip()}")


def _sources(requirements):
    """Where to look, as uv's options, one after the other: first where pip is configured to look."""
    if not any("+cpu" in requirement for requirement in requirements):
        return [[]]
    pip = subprocess.run(
        [sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=True
    )
    folders = {word for line in re.findall(r"\.find-links='(.*)'", pip.stdout) for word in line.split()}
    configured = [option for folder in sorted(folders) for option in ("--find-links", folder)]
    return [configured, ["--torch-backend", "cpu"]] if configured else [["--torch-backend", "cpu"]]


def environment(wanted, name, pins):
    """The text of an environment file. The pins are not aligned or commented: the text is what is hashed."""
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


if __name__ == "__main__":
    errors.run(main)
