"""Write and read manifests, `results/models/NAME.json`: a model directory's files, and what made them.

Snakemake has no checksum of directories, so later rules depend on the manifest.
"""

import functools
import importlib.metadata
from pathlib import Path

from prefline import files

# Files that a model needs besides weights and config.json; a trained model copies them from its start model.
COMPANIONS = (
    "generation_config.json",
    "tokenizer*",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab*",
    "merges.txt",
    "*.jinja",
    "*.tiktoken",
    "additional_chat_templates/*.jinja",
)
# Packages whose versions change a trained model.
PACKAGES = ("accelerate", "peft", "tokenizers", "torch", "transformers", "trl")
# Packages whose versions change any number.
NUMERIC = (*PACKAGES, "numpy", "vllm")


def write(path, directory, rule, params, parents, hashes=None):
    """Write the manifest of the finished model `directory` to `path`.

    rule: str, the rule that made it; params: dict of all values that changed it; parents: list of paths of
    files (other manifests, data) whose sha256 is recorded; hashes: as `hashes_of` returns them, if already
    computed.
    """
    directory = Path(directory)
    files.write_json(
        path,
        {
            "model": directory.name,
            "files": hashes or hashes_of(directory),
            "lineage": {
                "rule": rule,
                "params": params,
                "parents": {str(parent): files.sha256(parent) for parent in parents},
                "packages": packages(PACKAGES),
            },
        },
    )


def path_of(directory):
    """Return the path of a model directory's manifest: results/models/sft.json for results/models/sft."""
    directory = Path(directory)
    return directory.with_name(f"{directory.name}.json")


def contents(path):
    """Return the sha256 of a file, or of a model directory's files, from its manifest if it has one."""
    path = Path(path)
    if path.is_file():
        return files.sha256(path)
    described = path_of(path)
    return files.read_json(described)["files"] if described.is_file() else hashes_of(path)


def hashes_of(directory):
    """Return {path within `directory`: sha256} of all its files."""
    members = sorted(member for member in Path(directory).rglob("*") if member.is_file())
    return {str(member.relative_to(directory)): files.sha256(member) for member in members}


def packages(names):
    """Return the versions (dict of str, None where absent) of the packages called `names`."""
    return {name: version(name) for name in names}


@functools.cache
def version(package):
    """Return the installed version (str) of a package, None if it is absent."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
