"""A small `apptainer` for machines without one: it runs the commands here and notes their images.

An image is a file; what it would hold under /conda-envs stands in a folder of that name beside this command.
"""

import json
import subprocess
import sys
from pathlib import Path


def set_up(root):
    """Make the command; the folder it is in."""
    folder = root / "apptainer"
    (folder / "conda-envs").mkdir(parents=True)
    command = folder / "apptainer"
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{Path(__file__).resolve()}" "{folder}" "$@"\n')
    command.chmod(0o755)
    return folder


def notes(folder):
    """[(image, command, other words)] of everything that ran in an image."""
    file = folder / "notes.jsonl"
    return [tuple(json.loads(line)) for line in file.read_text().splitlines()] if file.exists() else []


def main(folder, *words):
    words = [word for word in words if word not in ("--quiet", "--silent")]
    match words:
        case ["--version"]:
            print("apptainer version 1.3.4")
        case ["pull", "--name", name, url]:
            Path(name).write_text(url)
        case ["exec", *options, image, _, "-c", command]:
            if not Path(image).exists():
                sys.exit(f"FATAL: could not open image {image}")
            with open(Path(folder, "notes.jsonl"), "a") as file:
                file.write(json.dumps([image, command, options]) + "\n")
            here = command.replace("/conda-envs/", f"{folder}/conda-envs/")
            sys.exit(subprocess.run(["bash", "-c", here], check=False).returncode)
        case _:
            sys.exit(f"this small apptainer has no {' '.join(words)}")


if __name__ == "__main__":
    main(*sys.argv[1:])
