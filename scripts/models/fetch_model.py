"""Take a finished model: from a local directory, or from the hub at a pinned revision.

Only what the workflow reads is taken: config.json, safetensors, the tokenizer's files, the chat template and
the generation config. Pickled weights can run code and are refused, unless the config allows them for this
model: then they are read as tensors alone, which refuses anything else in them, and made safetensors. A
model's own code is taken only if the config allows it for this model, and a model that does not load without
it is refused. Nothing leads out of the directory: an index names files in it, and a link may lead to the
hub's cache or, for weights, anywhere.

A directory without any weights is taken as it is: pretraining begins there with fresh ones. A chat template
that the config names takes the place of the model's own; base models, which have none, get one that way.
Local weights are hard-linked where the file system can, everything else is copied. Whether a model can score
is looked at here, before anything is generated for it to score. A branch of the hub is taken as it is now;
the manifest has its commit.

    python -m scripts.models.fetch_model --source hub:org/name@0123abc --out results/models/sft \
        --chat-template null --remote-code false --pickled-weights false --rewards '[]' \
        --manifest results/models/sft.json
"""

import json
import os
import shutil
import tempfile
from pathlib import Path

from prefline import files, rewards
from prefline.config import section
from prefline.data import sources
from prefline.errors import InputError, run
from prefline.provenance import manifest
from prefline.rewards import pairwise
from prefline.text import chat

TAKEN = ("config.json", "*.safetensors", "*.safetensors.index.json", *manifest.COMPANIONS)
CODE = ("*.py",)
PICKLED = ("*.bin", "*.pt", "*.pth", "*.ckpt")
CONVERTIBLE = ("pytorch_model*.bin", "pytorch_model*.bin.index.json")
# Never taken by a pattern that says `*`, like the tokenizer's.
UNSAFE = {Path(pattern).suffix for pattern in (*CODE, *PICKLED, "*.pkl", "*.pickle")}


def unsafe(taken):
    """The endings (set of str) that are not taken, whatever else the patterns `taken` fit."""
    return UNSAFE - {Path(pattern).suffix for pattern in taken}


def take_local(source, directory, taken):
    """Link or copy what fits the patterns `taken` of the directory `source`; InputError if there is none."""
    source = Path(source)
    if not source.is_dir():
        raise InputError(f"{source}: no such directory; a model's source is a directory or hub:ID@COMMIT")
    for path in sorted({path for pattern in taken for path in source.glob(pattern) if path.is_file()}):
        if path.suffix in unsafe(taken):
            continue
        _check_link(path, source)
        target = Path(directory) / path.relative_to(source)
        target.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix != ".safetensors" or not _linked(path.resolve(), target):
            shutil.copyfile(path, target)


def take_hub(name, revision, directory, taken):
    """Download what fits the patterns `taken` of revision `revision` of the hub's model `name`."""
    from huggingface_hub import errors, snapshot_download

    try:
        snapshot_download(
            name,
            revision=revision,
            allow_patterns=list(taken),
            ignore_patterns=sorted(f"*{suffix}" for suffix in unsafe(taken)),
            local_dir=directory,
        )
    except (errors.HfHubHTTPError, errors.LocalEntryNotFoundError, errors.HFValidationError) as error:
        raise sources.unreachable(f"hub:{name}@{revision}", error) from error
    shutil.rmtree(Path(directory) / ".cache", ignore_errors=True)


def set_template(directory, path):
    """Make the file `path` (str) the chat template of the model `directory`; InputError if there is none."""
    if not Path(path).is_file():
        raise InputError(f"{path}: no such chat template; mend models.NAME.chat_template")
    shutil.copyfile(path, Path(directory) / "chat_template.jinja")


def convert(source, directory):
    """Make safetensors of the pickled weights in `directory`; InputError if they hold more than tensors."""
    import transformers

    pickled = [path for pattern in CONVERTIBLE for path in Path(directory).glob(pattern)]
    config = transformers.AutoConfig.from_pretrained(directory, trust_remote_code=False)
    (architecture,) = config.architectures
    try:
        model = getattr(transformers, architecture).from_pretrained(
            directory, dtype="auto", use_safetensors=False, weights_only=True, trust_remote_code=False
        )
    except Exception as error:  # what is wrong with such a file is torch's to say, in many ways
        raise InputError(
            f"{source}: its pickled weights cannot be read as tensors alone ({type(error).__name__}); take "
            "another revision, or convert them to safetensors"
        ) from error
    # The files stay, and what is wrong in one of them would keep the weights from being saved.
    model.generation_config = transformers.GenerationConfig()
    with tempfile.TemporaryDirectory(dir=directory) as converted:
        model.save_pretrained(converted)
        for path in Path(converted).glob("*.safetensors*"):
            path.rename(Path(directory) / path.name)
    for path in pickled:
        path.unlink()


def check(source, directory, available):
    """Raise InputError unless `directory` holds a model that loads without running code from it.

    available: list of names (str) of what the source holds besides, to tell a model whose weights are all
    pickled from one without weights.
    """
    directory = Path(directory)
    if not (directory / "config.json").is_file():
        raise InputError(
            f"{source}: has no config.json; it is no model directory of the transformers library"
        )
    if not any(directory.glob("*.safetensors")):
        pickled = [name for name in available if any(Path(name).match(pattern) for pattern in PICKLED)]
        if pickled:
            raise InputError(
                f"{source}: has pickled weights only ({pickled[0]}), which can run code when loaded; convert "
                "them to safetensors, or allow their conversion with models.NAME.pickled_weights"
            )
    for index in directory.glob("*.safetensors.index.json"):
        for shard in sorted(set(files.read_json(index)["weight_map"].values())):
            if Path(shard).name != shard:
                raise InputError(f"{source}: {index.name} names {shard!r}, which is no file beside it")
            if not (directory / shard).is_file():
                raise InputError(f"{source}: lacks {shard}, which {index.name} names")
    for path in sorted(directory.glob("*.safetensors")):
        check_safetensors(source, path)


def check_safetensors(source, path):
    """Raise InputError unless the file `path` is what its name says: its header is read, no more."""
    import safetensors

    try:
        with safetensors.safe_open(path, "numpy"):
            pass
    except (safetensors.SafetensorError, OSError) as error:
        raise InputError(f"{source}: {path.name} is no whole safetensors file ({error})") from None


def check_code(source, directory, allowed):
    """Raise InputError for a model whose code, if `allowed`, is another repository's, or else is needed."""
    auto_map = files.read_json(Path(directory) / "config.json").get("auto_map", {})
    if auto_map and not allowed:
        from transformers import AutoConfig

        try:
            AutoConfig.from_pretrained(directory, trust_remote_code=False)
        except ValueError:
            raise InputError(
                f"{source}: does not load without code of its own, which is run for reward models only; read "
                "that code, then allow it with models.NAME.remote_code"
            ) from None
    elsewhere = sorted(str(name) for name in auto_map.values() if "--" in str(name))
    if allowed and elsewhere:
        raise InputError(
            f"{source}: its config.json takes code from another repository ({elsewhere[0]}), whose revision "
            "nothing pins; copy that code into the model's directory and name it there"
        )


def check_rewards(source, directory, wanted):
    """Raise InputError for a model that cannot serve as the rewards `wanted`: lists [kind, head weights]."""
    for kind, head_weights in wanted:
        try:
            if kind == "classifier":
                chat.load_tokenizer(directory)
                rewards.form(directory, head_weights)
            elif kind == "pairwise":
                pairwise.form(directory)
        except InputError as error:
            raise InputError(str(error).replace(str(directory), source)) from None


def _check_link(path, source):
    """Raise InputError for a link that leads to some file of this machine, which would be published."""
    target, root = path.resolve(), source.resolve()
    inside = target.is_relative_to(root) or target.is_relative_to(root.parent.parent / "blobs")
    if not inside and path.suffix != ".safetensors":
        raise InputError(f"{path}: is a link to {target}, out of the model; put the file itself there")


def _linked(path, target):
    try:
        os.link(path, target)
    except OSError:
        return False
    return True


def _available(source, hub):
    if hub is None:
        return [path.name for path in Path(source).glob("*")]
    import httpx2
    from huggingface_hub import errors, list_repo_files

    try:
        return list_repo_files(hub[0], revision=hub[1])
    except (errors.HfHubHTTPError, errors.HFValidationError, httpx2.HTTPError, OSError) as error:
        raise sources.unreachable(source, error) from error


def main(argv=None):
    parser = section.parser(__doc__)
    section.add(parser, "models.NAME", "source", "chat_template", "remote_code", "pickled_weights")
    parser.add_argument(
        "--rewards", type=json.loads, required=True, help="JSON: [[kind, head weights], …] it is to serve as"
    )
    parser.add_argument("--out", required=True, help="model directory to write")
    parser.add_argument("--manifest", required=True, help="the directory's manifest (json)")
    args = parser.parse_args(argv)

    hub = sources.parse_hub(args.source)
    lineage = {"source": args.source}
    if hub:
        hub = (hub[0], sources.commit_of(args.source))
        lineage["commit"] = hub[1]
    taken = TAKEN + CODE if args.remote_code else TAKEN
    pickled = args.pickled_weights and not any(
        name.endswith(".safetensors") for name in _available(args.source, hub)
    )
    if pickled:
        taken += CONVERTIBLE
    with files.atomic_directory(args.out) as directory:
        if hub:
            take_hub(*hub, directory, taken)
        else:
            take_local(args.source, directory, taken)
        if pickled:
            convert(args.source, directory)
        if args.chat_template is not None:
            set_template(directory, args.chat_template)
        check(args.source, directory, [] if _has_weights(directory) else _available(args.source, hub))
        check_code(args.source, directory, args.remote_code)
        check_rewards(args.source, directory, args.rewards)
        weights = "with weights" if _has_weights(directory) else "without weights"
    manifest.write(args.manifest, args.out, "fetch_model", lineage, [])
    print(f"{args.source} -> {args.out}, {weights}")


def _has_weights(directory):
    return any(Path(directory).glob("*.safetensors"))


if __name__ == "__main__":
    run(main)
