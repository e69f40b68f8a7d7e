"""Remove what checkouts leave behind: marks of whole files, shells of directories, results of removed runs.

`git checkout` and `dvc checkout` bring files back and take them away without Snakemake's knowledge.
"""

import os
import shutil
from pathlib import Path

from prefline.provenance import dvc_stages, metadata, records

# Snakemake keeps the time of a directory in it; DVC neither keeps nor removes it.
TIMESTAMP = ".snakemake_timestamp"


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

    Only what DVC keeps: its cache has the version of the last `dvc repro` or `dvc commit`. is_output: a
    function that tells whether a path (str) is the output of some rule.
    """
    kept, removed = dvc_stages.outs(), []
    for record in sorted(records.RECORDS.rglob("*.json")):
        output = records.output_of(record)
        if not kept & {str(path) for path in (output, *output.parents)} or is_output(str(output)):
            continue
        if output.is_dir():
            shutil.rmtree(output.resolve())  # of a fetched model, what the link leads to
        output.unlink(missing_ok=True)
        record.unlink()
        removed.append(str(output))
    drop_shells()
    if not removed:
        return ""
    models = [path for path in removed if Path(path).match("results/models/*") and f"{path}.json" in removed]
    named = f", with {', '.join(models)}" if models else ""
    return (
        f"removed {len(removed)} results that no rule makes under this config{named}; "
        "git checkout and dvc checkout bring them back"
    )
