"""What a model directory holds and where it came from: `results/models/NAME.json` beside the directory.

Directories have no checksum in Snakemake; their manifest is the file that later rules depend on.
"""

import importlib.metadata
from pathlib import Path

from prefline import files

# What a model needs besides weights and config.json; a trained one takes them over from where it started.
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
# Those that shape a trained model.
PACKAGES = ("accelerate", "peft", "tokenizers", "torch", "transformers", "trl")


def write(path, directory, rule, params, parents, hashes=None):
    """Write the manifest of the finished model `directory` to `path`.

    rule: str, the rule that made it; params: dict, everything that shaped it; parents: list of paths of
    files (other manifests, data) whose sha256 is recorded; hashes: as `hashes_of` gives them, where that is
    known.
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
    """Where the manifest of the model `directory` stands: results/models/sft.json for results/models/sft."""
    directory = Path(directory)
    return directory.with_name(f"{directory.name}.json")


def contents(path):
    """The sha256 of a file, or those of a model directory's files: its manifest's, where it has one."""
    path = Path(path)
    if path.is_file():
        return files.sha256(path)
    described = path_of(path)
    return files.read_json(described)["files"] if described.is_file() else hashes_of(path)


def hashes_of(directory):
    """{path within `directory`: sha256} of all its files."""
    members = sorted(member for member in Path(directory).rglob("*") if member.is_file())
    return {str(member.relative_to(directory)): files.sha256(member) for member in members}


def packages(names):
    """The versions (dict of str, None where absent) of the packages called `names`."""
    return {name: version(name) for name in names}


def version(package):
    """The installed version (str) of a package, None if it is absent."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
