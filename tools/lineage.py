"""Print the tree of everything that made a result, and whether it is still what was recorded.

Each file under results/ has a record in results/records/ (prefline/provenance/records.py). For each job back
to the data it prints config values, code hash, versions of packages that change numbers, duration, data and
input files. The shards of one rule are printed once and counted; all are verified. The exit status is 1 if
something no longer matches its record.

    python -m tools.lineage results/winrate.json
"""

import ast
import os
import sys
from pathlib import Path

from prefline import errors, files
from prefline.config import section
from prefline.errors import InputError
from prefline.provenance import hashes, imports, leftovers, manifest, records

HASHES = hashes.Hashes(os.devnull)  # of this process: it reads every file


def tree(path, printed, depth=0):
    """Return the lines of the tree below the output `path`; one in `printed` (set) is named, not repeated."""
    indent = "  " * depth
    record = records.read(path)
    if record is None:
        raise InputError(
            f"{path}: has no record ({records.path_of(path)}): only files that the workflow made under "
            "results/ have one; pull it, or run snakemake"
        )
    if path in printed:
        return [f"{indent}{path} (see above)"]
    printed.add(path)
    rule = record["snakemake"]["rule"]
    lines = [f"{indent}{path}  sha256 {record['sha256'][:12]}  {rule}, {record['seconds']:.1f} s"]
    lines += [f"{indent}    {line}" for line in details(record)]
    by_rule = {}
    for source in record["inputs"]:
        made = records.read(source)
        by_rule.setdefault(made["snakemake"]["rule"] if made else source, []).append(source)
    for sources in by_rule.values():
        new = [source for source in sources if source not in printed]
        lines += tree((new or sources)[0], printed, depth + 1)
        if len(sources) > 1:
            lines.append(f"{indent}  and {len(sources) - 1} more like it")
    return lines


def details(record):
    """Return the lines (list of str) on what else made a result: config, code, packages, data, time."""
    made = record["snakemake"]
    params = [ast.literal_eval(text) for text in made["params"]]
    params = [one for param in params for one in (param if isinstance(param, list) else [param])]
    lines = ["touched: no job made it from what follows"] if "touched" in record else []
    lines += [f"config {text}" for text in params if str(text).startswith("--")]
    for text in params:
        if str(text).startswith("code "):
            script, _, code = text.removeprefix("code ").rpartition(" ")
            same = Path(script).is_file() and code == imports.code_hash(script)
            changed = "as it is now" if same else "changed since"
            of = f"{changed}: {script}" if script else "of an earlier version, which did not note the script"
            lines.append(f"code {code[:12]}, {of}")
    if record["packages"]:
        now = {name: f" (now {now or 'none'})" for name, _, now in records.differing(record)}
        named = [f"{name} {version}{now.get(name, '')}" for name, version in record["packages"].items()]
        lines.append("packages " + ", ".join(named))
    lines += [
        f"data {path}  sha256 {(sha or 'changed while the job ran')[:12]}"
        for path, sha in record["data"].items()
    ]
    return lines


def verify(path, done):
    """Return the first thing below `path` that is not what was recorded, as a sentence; None if all is.

    done: set of paths that are verified already; those below `path` are added.
    """
    if path in done:
        return None
    done.add(path)
    record = records.read(path)
    if record is None:
        return f"{path} has no record"
    for name, sha in {**record["data"], path: record["sha256"]}.items():
        if not Path(name).exists():
            return f"{name} is missing"
        if sha is None:
            return f"{name} changed while {path} was made"
        if HASHES.of(name) != sha:
            return f"{name} has changed since {path} was made"
    if "touched" in record:
        return f"{path} was declared up to date by `snakemake --touch`, and not made from its inputs"
    if wrong := _wrong_member(path):
        return f"{wrong} differs from {path}"
    for source, sha in record["inputs"].items():
        other = records.read(source)
        if other is not None and other["sha256"] != sha:
            return f"{source} has changed since {path} was made"
        if sentence := verify(source, done):
            return sentence
    return None


def _wrong_member(path):
    """Return the first file of a model directory that differs from the manifest `path`; None otherwise."""
    directory = Path(path).with_suffix("")
    if Path(path).suffix != ".json" or manifest.path_of(directory) != Path(path) or not directory.is_dir():
        return None
    known = files.read_json(path)["files"]
    found = {str(one.relative_to(directory)) for one in directory.rglob("*") if one.is_file()}
    for name in sorted(known.keys() | found - {leftovers.TIMESTAMP}):
        if name not in known or name not in found or HASHES.of(directory / name) != known[name]:
            return directory / name
    return None


def main(argv=None):
    parser = section.parser(__doc__)
    parser.add_argument("path", help="a file under results/")
    args = parser.parse_args(argv)
    if records.RESULTS not in Path(args.path).parents:
        raise InputError(f"{args.path}: not under results/; name a file there as it is called from here")
    print("\n".join(tree(args.path, set())))
    done = set()
    wrong = verify(args.path, done)
    if wrong:
        sys.exit(f"not verified: {wrong}")
    print(f"verified: {len(done)} files under results/ and the data are what their records say")


if __name__ == "__main__":
    errors.run(main)
