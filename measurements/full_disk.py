"""A disk that is full whenever something is to be written: is every artifact whole or absent, and made later?

The chain of --configfile runs once undisturbed. Then it runs again with results/ on a file system of its own
(tmpfs; needs root), which is always full: when a job could not write what it made, room is made for that
alone, and the same command is given again. So the disk is full for every job whose files do not fit into the
rest of a page or two. What is there in the end is compared byte by byte with the undisturbed run, and nothing
half-written may be left beside it.

    python -m measurements.full_disk --configfile tests/workflow/quick.yaml
"""

import re
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

from measurements.default_run import copy_project
from measurements.reliability import hashes
from prefline.config import section

PAGE = 4096
FAILED = re.compile(r"^Error in rule (\w+):$.*?^ +output: (.*?)$", re.MULTILINE | re.DOTALL)


def snakemake(directory, configfile):
    """(exit status, what it said)."""
    words = ["snakemake", "--cores", "1", "--configfile", configfile]
    done = subprocess.run(words, cwd=directory, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    return done.returncode, done.stdout


def pages(path):
    """Bytes that a file or a directory takes on a tmpfs."""
    files = [path] if path.is_file() else [inside for inside in path.rglob("*") if inside.is_file()]
    return sum(-(-inside.stat().st_size // PAGE) * PAGE for inside in files) + PAGE * (len(files) + 1)


def used(folder):
    return int(subprocess.check_output(["df", "--output=used", "-B1", folder], text=True).split()[-1])


def resize(folder, size):
    subprocess.run(["mount", "-o", f"remount,size={size}", folder], check=True)


def fill(directory, undisturbed, configfile):
    """Run the chain in `directory` on a disk that is always full; Counter of the rules that met it."""
    results, met = directory / "results", Counter()
    room, last = PAGE, None
    while True:
        resize(results, used(results) + room)
        status, said = snakemake(directory, configfile)
        if status == 0:
            return met
        failed = FAILED.findall(said)
        if not failed or "No space left on device" not in said:
            sys.exit(f"failed for another reason than the full disk:\n{said[-4000:]}")
        rule, outputs = failed[0]
        if outputs != last:
            met[rule] += 1
            print(f"full at {rule}: {outputs.split(', ')[0]}", flush=True)
            room = PAGE
        room += sum(pages(undisturbed / name.split(" ")[0]) for name in outputs.split(", "))
        last = outputs


def main():
    parser = section.parser(__doc__)
    parser.add_argument("--configfile", required=True, help="overlay of config.yaml, from the root")
    args = parser.parse_args()

    with tempfile.TemporaryDirectory() as folder:
        undisturbed, directory = Path(folder) / "undisturbed", Path(folder) / "full"
        copy_project(undisturbed)
        status, said = snakemake(undisturbed, args.configfile)
        if status:
            sys.exit(said[-4000:])
        copy_project(directory)
        results = directory / "results"
        results.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={PAGE}", "none", results], check=True)
        try:
            met = fill(directory, undisturbed, args.configfile)
            wanted, found = hashes(undisturbed), hashes(directory)
            left = [str(path) for path in results.rglob("*.tmp")]
        finally:
            subprocess.run(["umount", results], check=True)
    print("\n| full at | times |\n|---|---:|")
    for name, count in met.most_common():
        print(f"| {name} | {count} |")
    print(f"\n{len(wanted)} files compared, {sum(wanted[name] != found.get(name) for name in wanted)} differ")
    print(f"{len(left)} half-written files left {left[:3]}")
    sys.exit(bool(left) or wanted != found)


if __name__ == "__main__":
    main()
