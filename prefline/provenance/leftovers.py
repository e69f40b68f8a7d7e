"""Remove what checkouts leave behind: marks of whole files, shells of directories, results of removed runs.

`git checkout` and `dvc checkout` bring files back and take them away without Snakemake's knowledge.
"""

import os
import shutil
from pathlib import Path

from prefline.provenance import dvc_stages, metadata, records

# Snakemake keeps the time of a directory in it; DVC neither keeps nor removes it.
TIMESTAMP = ".snakemake_timestamp"
# Models to which links in results/models/ lead.
FETCHED = metadata.RESULTS / "fetched"


def drop_markers(hashes):
    """Remove Snakemake's marks of incomplete files from files that equal their record (hashes: Hashes)."""
    for output, marker in metadata.entries(metadata.INCOMPLETE):
        record = records.read(output) if Path(output).exists() else None
        if record is not None and record["sha256"] == hashes.of(output):
            marker.unlink()


def drop_shells():
    """Remove directories under results/ that hold no file, which Snakemake would take for models.

    Those directly in results/ and results/records/ stay: they are outputs of DVC's stages.
    """
    for directory, folders, names in os.walk(metadata.RESULTS, topdown=False):
        path = Path(directory)
        outs = records.RECORDS if path.is_relative_to(records.RECORDS) else metadata.RESULTS
        if len(path.parts) < len(Path(outs).parts) + 2 or set(names) - {TIMESTAMP}:
            continue
        if not any(Path(path, folder).exists() for folder in folders):
            shutil.rmtree(path)


def sweep(is_output):
    """Remove results that no rule makes any more; return a sentence about them, "" for none.

    Only what DVC's cache has from the last `dvc repro` or `dvc commit`, and fetched models, which it never
    has. Of a link, what it leads to stays, unless that is a fetched model. is_output: a function that tells
    whether a path (str) is the output of some rule.
    """
    kept, removed, left = dvc_stages.outs(), [], []
    found = {records.output_of(record): record for record in sorted(records.RECORDS.rglob("*.json"))}
    found = {
        output: record
        for output, record in found.items()
        if kept & {str(path) for path in (output, *output.parents)} and not is_output(str(output))
    }
    stored = dvc_stages.stored() if found else set()
    for output, record in found.items():
        if output.is_symlink() and output.resolve().parent == FETCHED.resolve():
            shutil.rmtree(output.resolve())
        elif not {str(path) for path in _members(output)} <= stored:
            left.append(str(output))
            continue
        if output.is_dir() and not output.is_symlink():
            shutil.rmtree(output)
        output.unlink(missing_ok=True)
        record.unlink()
        removed.append(str(output))
    drop_shells()
    said = []
    if removed:
        models = [one for one in removed if Path(one).match("results/models/*") and f"{one}.json" in removed]
        named = f", with {', '.join(models)}" if models else ""
        said.append(
            f"removed {len(removed)} results that no rule makes under this config{named}; git checkout and "
            "dvc checkout bring them back, and fetched models are fetched again"
        )
    if left:
        more = f" and {len(left) - 3} more" if len(left) > 3 else ""
        said.append(
            f"no rule makes {', '.join(left[:3])}{more} under this config; they stay, since DVC has no copy"
        )
    return "; ".join(said)


def _members(output):
    """Return the files (list of Path) of an output."""
    if not output.is_dir():
        return [output] if output.exists() else []
    return [path for path in output.rglob("*") if path.is_file() and path.name != TIMESTAMP]
