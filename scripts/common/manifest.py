"""What a model directory holds and where it came from: `results/models/NAME.json` beside the directory.

Directories have no checksum in Snakemake; their manifest is the file that later rules depend on.
"""

import importlib.metadata
from pathlib import Path

from scripts.common import files

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
PACKAGES = ("accelerate", "peft", "tokenizers", "torch", "transformers", "trl")


def write(path, directory, rule, params, parents):
    """Write the manifest of the finished model `directory` to `path`.

    rule: str, the rule that made it; params: dict, everything that shaped it; parents: list of paths of
    files (other manifests, data) whose sha256 is recorded.
    """
    directory = Path(directory)
    members = sorted(member for member in directory.rglob("*") if member.is_file())
    files.write_json(
        path,
        {
            "model": directory.name,
            "files": {str(member.relative_to(directory)): files.sha256(member) for member in members},
            "lineage": {
                "rule": rule,
                "params": params,
                "parents": {str(parent): files.sha256(parent) for parent in parents},
                "packages": packages(),
            },
        },
    )


def path_of(directory):
    """Where the manifest of the model `directory` stands: results/models/sft.json for results/models/sft."""
    directory = Path(directory)
    return directory.with_name(f"{directory.name}.json")


def packages():
    """The versions (dict of str, None where absent) of the packages that shape a model."""
    return {name: version(name) for name in PACKAGES}


def version(package):
    """The installed version (str) of a package, None if it is absent."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
