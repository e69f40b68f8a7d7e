"""Print the tree of everything that made a result, and whether it is still what was recorded.

Each file under results/ has a record in results/records/ (prefline/provenance/records.py). Printed are, for
each job back to the data: the config values it was given, its code's hash, the versions of the packages that
shape numbers, how long it took, the data it read, and the files it was made from. The shards of one rule are
printed once and counted; all of them are verified. Exit status 1 if something no longer matches its record.

    python -m tools.lineage results/winrate.json
"""

import ast
import functools
import sys
from pathlib import Path

from prefline import errors, files
from prefline.config import section
from prefline.errors import InputError
from prefline.provenance import imports, manifest, records


def tree(path, printed, depth=0):
    """Lines of the tree below the output `path`, it first; what is in `printed` (set) is only named again."""
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
    """What shaped a result beside its inputs, a line each (list of str)."""
    made = record["snakemake"]
    params = [ast.literal_eval(text) for text in made["params"]]
    params = [one for param in params for one in (param if isinstance(param, list) else [param])]
    lines = [f"config {text}" for text in params if str(text).startswith("--")]
    for text in params:
        if str(text).startswith("code "):
            script, _, code = text.removeprefix("code ").rpartition(" ")
            same = Path(script).is_file() and code == imports.code_hash(script)
            lines.append(f"code {code[:12]}, {'as it is now' if same else 'changed since'}: {script}")
    if record["packages"]:
        lines.append(
            "packages " + ", ".join(f"{name} {version}" for name, version in record["packages"].items())
        )
    lines += [
        f"data {path}  sha256 {(sha or 'changed while the job ran')[:12]}"
        for path, sha in record["data"].items()
    ]
    return lines


def verify(path, done):
    """The first thing below `path` that is not what was recorded, as a sentence; None if all is.

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
        if Path(name).is_file() and _sha256(name) != sha:
            return f"{name} is not what it was when {path} was made"
    if wrong := _wrong_member(path):
        return f"{wrong} is no longer what {path} says"
    for source, sha in record["inputs"].items():
        other = records.read(source)
        if other is not None and other["sha256"] != sha:
            return f"{source} is no longer what {path} was made from"
        if sentence := verify(source, done):
            return sentence
    return None


@functools.cache
def _sha256(path):
    return files.sha256(path)


def _wrong_member(path):
    """The first file of a model directory that is not what the manifest `path` says; None for other files."""
    directory = Path(path).with_suffix("")
    if Path(path).suffix != ".json" or manifest.path_of(directory) != Path(path) or not directory.is_dir():
        return None
    for name, sha in files.read_json(path)["files"].items():
        if not (directory / name).is_file() or files.sha256(directory / name) != sha:
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
