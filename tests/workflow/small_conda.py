"""A small `conda` for machines without one: py-rattler solves, installs and activates, and pip does its part.

The channel is a folder with two packages: a `python` that stands for the interpreter that runs the tests and
sees its packages, and an empty `pip`. So the environments of the project are made offline and for real: pip
takes an environment's list as fulfilled only if every package is there in exactly the pinned version.
"""

import asyncio
import io
import json
import os
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
from pathlib import Path

import yaml

SUBDIR = "linux-64"
# The environment's interpreter notes what it ran.
NOTE = """\
import sys
with open(f"{sys.prefix}/ran.txt", "a") as notes:
    notes.write(" ".join(sys.orig_argv[1:3]) + "\\n")
"""


def set_up(root, packages):
    """Make a channel with `packages` (dict: name -> list of versions) and the commands; the PATH to use."""
    from rattler.index import index_fs

    for name, versions in packages.items():
        for version in versions:
            _package(
                root / "channels/conda-forge" / SUBDIR, name, version, _python() if name == "python" else {}
            )
    asyncio.run(index_fs(root / "channels/conda-forge"))
    call = f'"{sys.executable}" "{Path(__file__).resolve()}" "{root}"'
    _write(root / "bin/conda", f'#!/bin/sh\nexec {call} "$@"\n')
    _write(root / "bin/activate", f'eval "$({call} activate "$1")"\n')
    return f"{root / 'bin'}:{os.environ['PATH']}"


def _python():
    """The files of the stand-in: a link to the interpreter, in the form of a virtual environment."""
    library = f"lib/python{sys.version_info.major}.{sys.version_info.minor}/site-packages"
    interpreter = Path(sys.executable).resolve()
    return {
        "bin/python": interpreter,
        "pyvenv.cfg": f"home = {interpreter.parent}\ninclude-system-site-packages = false\n",
        f"{library}/tests.pth": f"import site; site.addsitedir({sysconfig.get_path('purelib')!r})\n",
        f"{library}/sitecustomize.py": NOTE,
    }


def _package(folder, name, version, members):
    """Write a conda package. members: dict, path in the environment -> its text, or a Path to link to."""
    index = {
        "name": name,
        "version": version,
        "build": "0",
        "build_number": 0,
        "depends": [],
        "subdir": SUBDIR,
    }
    paths = [
        {"_path": path, "path_type": "softlink" if isinstance(content, Path) else "hardlink"}
        for path, content in members.items()
    ]
    information = {
        "info/index.json": json.dumps(index),
        "info/paths.json": json.dumps({"paths": paths, "paths_version": 1}),
        "info/files": "".join(f"{path}\n" for path in members),
    }
    folder.mkdir(parents=True, exist_ok=True)
    with tarfile.open(folder / f"{name}-{version}-0.tar.bz2", "w:bz2") as archive:
        for path, content in {**information, **members}.items():
            member = tarfile.TarInfo(path)
            if isinstance(content, Path):
                member.type, member.linkname = tarfile.SYMTYPE, str(content)
                archive.addfile(member)
            else:
                member.size = len(content.encode())
                archive.addfile(member, io.BytesIO(content.encode()))


def _write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)


def create(root, file, prefix):
    """What `conda env create --file FILE --prefix PREFIX` does."""
    import rattler

    wanted = yaml.safe_load(Path(file).read_text())
    names = rattler.ChannelConfig(channel_alias=f"file://{root}/channels/")
    channels = [rattler.Channel(name, names) for name in wanted["channels"] if name != "nodefaults"]
    specs = [part for part in wanted["dependencies"] if isinstance(part, str)]
    records = asyncio.run(rattler.solve(channels, specs, platforms=[SUBDIR, "noarch"]))
    asyncio.run(rattler.install(records, prefix, cache_dir=root / "packages", show_progress=False))
    for part in wanted["dependencies"]:
        if isinstance(part, dict):
            with tempfile.NamedTemporaryFile("w", suffix=".txt") as requirements:
                requirements.write("\n".join(part["pip"]))
                requirements.flush()
                pip = [f"{prefix}/bin/python", "-m", "pip", "install", "--upgrade", "-r", requirements.name]
                subprocess.run(pip, check=True, env={**os.environ, "PIP_NO_INDEX": "1"})


def activate(prefix):
    from rattler.shell import ActivationVariables, Shell, activate

    path = [folder for folder in os.environ["PATH"].split(":") if folder]
    variables = ActivationVariables(current_prefix=os.environ.get("CONDA_PREFIX"), current_path=path)
    print(activate(Path(prefix), variables, Shell.bash).script)


def main(root, *words):
    match words:
        case ("--version",):
            print("conda 24.7.1")
        case ("info", "--json"):
            print(json.dumps({"conda_prefix": root, "platform": SUBDIR}))
        case ("config", "--get", "channel_priority", "--json"):
            print(json.dumps({"get": {"channel_priority": "strict"}}))
        case ("env", "create", *options):
            create(Path(root), options[options.index("--file") + 1], options[options.index("--prefix") + 1])
        case ("clean", "-y", "--tarballs"):
            pass
        case ("activate", prefix):
            activate(prefix)
        case _:
            sys.exit(f"this small conda has no {' '.join(words)}")


if __name__ == "__main__":
    main(*sys.argv[1:])
