"""Find the mistake in a model directory by the names, sizes and headers of its files."""

from pathlib import Path

from prefline import model_files, paths

# Weights that may hold code, and those that are converted if the config allows it.
PICKLED = ("*.bin", "*.pt", "*.pth", "*.ckpt")
# Patterns of a tokenizer's files, of which each has at least one.
TOKENIZER = ("tokenizer*", "vocab*", "merges.txt", "*.tiktoken", "*.model")


def mistake(directory, available, weights=True, pickled=False):
    """Return the mistake (str) in a model directory (Path); None if there is none.

    available: names (list of str) of all files of its source, which tell a model with weights of another kind
    from one without any; weights: whether it must have some; pickled: whether pickled ones are allowed.
    """
    if not (directory / "config.json").is_file():
        hint = _instead(directory, available)
        return f"has no config.json, so it is not a model directory of transformers; {hint}"
    if wrong := model_files.mistake(directory):
        return wrong
    if not any(directory.glob("*.safetensors")):
        found = [name for name in available if any(Path(name).match(pattern) for pattern in PICKLED)]
        if found and not pickled:
            return (
                f"has pickled weights only ({found[0]}), which can run code when loaded; convert them to "
                "safetensors, or allow their conversion with models.NAME.pickled_weights"
            )
        if weights and not found:
            return f"has no weights (*.safetensors); {_instead(directory, available)}"
    if not any(path for pattern in TOKENIZER for path in directory.glob(pattern)):
        return "has no tokenizer (such as tokenizer.json); put the model's there"
    return _missing_shard(directory)


def broken_file(directory):
    """Return the mistake (str) in a file of a local model directory (Path); None if there is none."""
    for path in sorted(directory.iterdir()):
        if path.is_symlink() and not path.exists():
            return paths.mistake(path, "file")
        if wrong := paths.unreadable(path):
            return wrong
        if path.suffix in (".safetensors", ".json") and not path.stat().st_size:
            return f"{path} is empty; fetch it again"
    return None


def cut_short(directory):
    """Return what is wrong (str) with the weights in a directory (Path), by headers and sizes; or None."""
    import safetensors

    for path in sorted(directory.glob("*.safetensors")):
        try:
            with safetensors.safe_open(path, "numpy"):
                pass
        except (safetensors.SafetensorError, OSError) as error:
            return f"{path.name} is not a complete safetensors file ({error})"
    return None


def _missing_shard(directory):
    """Return the mistake (str) in an index of weights: a shard that is missing or elsewhere; or None."""
    for index in sorted(directory.glob("*.safetensors.index.json")):
        shards = model_files.shards(index)
        if shards is None:
            return f"its {index.name} is no index of weights; fetch it again"
        for shard in shards:
            if Path(shard).name != shard:
                return f"{index.name} names {shard!r}, which is no file beside it"
            if not (directory / shard).is_file():
                return f"lacks {shard}, which {index.name} names"
    return None


def _instead(directory, available):
    """Return what to do (str) about a directory without a config or weights, from the files that it has."""
    if "adapter_config.json" in available:
        return "it is an adapter: merge it into its model, and name the result"
    if found := [name for name in available if name.endswith(".gguf")]:
        return f"{found[0]} is for llama.cpp: name the original model"
    inside = sorted([*directory.glob("*/config.json"), *directory.glob("snapshots/*/config.json")])
    if inside:
        return f"did you mean {inside[0].parent}?"
    return "name one, or complete it"
