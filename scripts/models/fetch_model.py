"""Fetch a finished model from a local directory, or from the hub at a pinned revision.

Only files that the workflow reads are fetched: config.json, safetensors, the tokenizer's files, the chat
template and the generation config.

- Pickled weights can run code and are refused, unless the config allows them for this model. Then they are
  read as tensors only, and converted to safetensors.
- A model's own code is fetched only if the config allows it for this model. A model that needs its code is
  refused otherwise.
- A policy is refused if no way to compute its architecture is exact (training/probe.py).
- A tokenizer is refused if the class that loads it gives other ids than its tokenizer.json.
- An index may only name files in the directory. Links may lead to the hub's cache or, for weights, anywhere.
- A directory without weights is fetched unchanged: pretraining begins there with random weights.
- A chat template that the config names replaces the model's own; base models, which have none, get one in
  this way. Settings of a template (variables, today's date, system messages) are written into the template,
  so that all later steps, vLLM's server and the hub render the same.
- Before any completion is generated, the weights are checked against the config's architecture and for NaN,
  and reward models for their ability to score.

Local weights are hard-linked if the file system allows it; other files are copied. Of a branch of the hub,
the newest commit is fetched and recorded in the manifest.

results/models/ has a link to the directory: DVC stores what is in results/models/ and does not follow links.
So neither its cache nor a remote gets gigabytes that can be fetched again.

    python -m scripts.models.fetch_model --source hub:org/name@0123abc --out results/fetched/sft \
        --link results/models/sft --chat-template null --chat-template-kwargs null \
        --system-message own --reasoning-markers null --date 2026-01-01 --remote-code false \
        --pickled-weights false --rewards '[]' --random-weights false --manifest results/models/sft.json
"""

import json
import os
import shutil
import tempfile
from pathlib import Path

from prefline import files, model_directory, model_files
from prefline.config import section
from prefline.data import sources
from prefline.errors import InputError, run
from prefline.provenance import manifest
from prefline.rewards import forms, pairwise
from prefline.text import limits, templates, tokenizer_class
from prefline.training import whole_weights

TAKEN = ("config.json", "*.safetensors", "*.safetensors.index.json", *manifest.COMPANIONS)
CODE = ("*.py",)
# Keys of a model that go into its chat template.
SETTLED = ("chat_template_kwargs", "system_message", "reasoning_markers")
CONVERTIBLE = ("pytorch_model*.bin", "pytorch_model*.bin.index.json")
# Endings of programs and pickles, which a pattern with `*`, such as the tokenizer's, never takes.
UNSAFE = {Path(pattern).suffix for pattern in (*CODE, *model_directory.PICKLED)}
UNSAFE |= {
    f".{each}" for each in ("pkl", "pickle", "joblib", "dill", "npy", "npz", "pyc", "pyd", "pyz", "so", "dll")
}
UNSAFE |= {f".{each}" for each in ("dylib", "exe", "sh", "bat", "cmd", "jar", "whl", "egg")}


def unsafe(taken):
    """Return the endings (set of str) that are not taken, even if they fit the patterns `taken`."""
    return UNSAFE - {Path(pattern).suffix for pattern in taken}


def is_unsafe(name, taken):
    """Return whether a file's name (str) has such an ending, in any case and also before another."""
    return any(suffix.lower() in unsafe(taken) for suffix in Path(name).suffixes)


def take_local(source, directory, taken):
    """Link or copy files of the directory `source` that fit the patterns `taken`; it must exist."""
    source = Path(source)
    if not source.is_dir():
        raise InputError(f"{source}: no such directory; a model's source is a directory or hub:ID@COMMIT")
    for path in sorted({path for pattern in taken for path in source.glob(pattern) if path.is_file()}):
        if is_unsafe(path.name, taken):
            continue
        _check_link(path, source)
        target = Path(directory) / path.relative_to(source)
        target.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix != ".safetensors" or not _linked(path.resolve(), target):
            shutil.copyfile(path, target)


def take_hub(name, revision, directory, taken):
    """Download files of a hub model that fit the patterns `taken`. name: its id; revision: its commit."""
    from huggingface_hub import errors, snapshot_download

    try:
        snapshot_download(
            name,
            revision=revision,
            allow_patterns=list(taken),
            ignore_patterns=sorted(
                f"*{_any_case(suffix)}{end}" for suffix in unsafe(taken) for end in ("", ".*")
            ),
            local_dir=directory,
        )
    except (errors.HfHubHTTPError, errors.LocalEntryNotFoundError, errors.HFValidationError) as error:
        raise sources.unreachable(f"hub:{name}@{revision}", error) from error
    shutil.rmtree(Path(directory) / ".cache", ignore_errors=True)


def _any_case(suffix):
    """Return a pattern for a suffix (str, in lower case) in upper or lower case."""
    return "".join(f"[{one}{one.upper()}]" if one.isalpha() else one for one in suffix)


def set_template(directory, path):
    """Make the file `path` (str) the chat template of the model `directory`; raise InputError without it."""
    if not Path(path).is_file():
        raise InputError(f"{path}: no such chat template; correct models.NAME.chat_template")
    shutil.copyfile(path, Path(directory) / "chat_template.jinja")


def convert(source, directory):
    """Convert the pickled weights in `directory` to safetensors; raise InputError for other contents."""
    import transformers

    pickled = [path for pattern in CONVERTIBLE for path in Path(directory).glob(pattern)]
    try:
        config = transformers.AutoConfig.from_pretrained(directory, trust_remote_code=False)
    except Exception as error:  # the library refuses values in many ways
        raise refused_by_library(source, error) from None
    if len(config.architectures or ()) != 1:
        raise InputError(f"{source}: its config.json names no single architecture; correct `architectures`")
    (architecture,) = config.architectures
    try:
        model = getattr(transformers, architecture).from_pretrained(
            directory, dtype="auto", use_safetensors=False, weights_only=True, trust_remote_code=False
        )
    except Exception as error:  # torch reports broken files in many ways
        raise InputError(
            f"{source}: its pickled weights cannot be read as tensors alone ({type(error).__name__}); take "
            "another revision, or convert them to safetensors"
        ) from error
    # Its file stays; an invalid value in it would make save_pretrained fail.
    model.generation_config = transformers.GenerationConfig()
    with tempfile.TemporaryDirectory(dir=directory) as converted:
        model.save_pretrained(converted)
        for path in Path(converted).glob("*.safetensors*"):
            path.rename(Path(directory) / path.name)
    for path in pickled:
        path.unlink()


def check(source, directory, available, weights):
    """Raise InputError unless `directory` has a model that loads without running code from it.

    available, weights: as model_directory.mistake takes them.
    """
    directory = Path(directory)
    if wrong := model_directory.mistake(directory, available, weights):
        raise InputError(f"{source}: {wrong}")
    if wrong := model_directory.cut_short(directory):
        raise InputError(f"{source}: {wrong}; fetch it again")


def check_code(source, directory, allowed):
    """Raise InputError for code of another repository if code is `allowed`, and for needed code otherwise."""
    from transformers import AutoConfig

    auto_map = files.read_json(Path(directory) / "config.json").get("auto_map") or {}
    if not (auto_map and allowed):
        try:
            AutoConfig.from_pretrained(directory, trust_remote_code=False)
        except Exception as error:  # the library refuses values in many ways
            if auto_map and isinstance(error, ValueError):
                raise InputError(
                    f"{source}: needs its own Python code to load, which is run for reward models only; read "
                    "that code, then allow it with models.NAME.remote_code"
                ) from None
            raise refused_by_library(source, error) from None
    elsewhere = sorted(str(name) for name in auto_map.values() if "--" in str(name))
    if allowed and elsewhere:
        raise InputError(
            f"{source}: its config.json takes code from another repository ({elsewhere[0]}), whose revision "
            "nothing pins; copy that code into the model's directory and name it there"
        )


def refused_by_library(source, error):
    """Return the InputError for a model whose config.json the transformers library refuses with `error`."""
    said = " ".join(str(error).split()) or type(error).__name__
    return InputError(
        f"{source}: the transformers library cannot use its config.json ({said:.200}); correct it, or take "
        "another revision"
    )


def check_template(source, directory):
    """Raise InputError for a chat template that computes for ever, or fills the memory."""
    for text in templates.of_model(directory):
        if wrong := limits.mistake(text):
            raise InputError(
                f"{source}: its chat template {wrong}; correct it, and name it as models.NAME.chat_template"
            )


def check_rewards(source, directory, wanted):
    """Raise InputError for a model that cannot be one of the rewards `wanted`: lists [kind, head weights]."""
    for kind, head_weights in wanted:
        try:
            if kind == "classifier":
                forms.check(directory, head_weights)
            elif kind == "pairwise":
                pairwise.check(directory)
        except InputError as error:
            raise InputError(str(error).replace(str(directory), source)) from None


def architecture(source, directory):
    """Return how to compute a policy of this architecture (dict), or None for other kinds of models.

    Raises InputError if no way is exact.
    """
    from transformers import AutoConfig
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING

    from prefline.training import probe

    config = AutoConfig.from_pretrained(directory, trust_remote_code=False)
    if type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING:
        return None
    try:
        return probe.summary(config)
    except InputError as error:
        raise InputError(f"{source}: {error}") from None
    except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        raise refused_by_library(source, error) from error


def _check_link(path, source):
    """Raise InputError for a link to a file outside the model, which would be published."""
    target, root = path.resolve(), source.resolve()
    inside = target.is_relative_to(root) or target.is_relative_to(root.parent.parent / "blobs")
    if not inside and path.suffix != ".safetensors":
        raise InputError(f"{path}: is a link to {target}, outside the model; put the file itself there")


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
    section.add(parser, "models.NAME", "source", "remote_code", "pickled_weights")
    section.add(parser, "models.NAME", "chat_template", *SETTLED)
    section.add(parser, "date")
    parser.add_argument(
        "--rewards",
        type=json.loads,
        required=True,
        help="rewards of it: [[kind, head weights], …] (JSON)",
    )
    parser.add_argument(
        "--random-weights",
        type=json.loads,
        required=True,
        help="true: it may have no weights, since only trainings start from it",
    )
    parser.add_argument("--out", required=True, help="model directory to write")
    parser.add_argument("--link", required=True, help="link to it")
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
        if wrong := model_files.mistake(directory):
            raise InputError(f"{args.source}: {wrong}")
        if pickled:
            convert(args.source, directory)
        if args.chat_template is not None:
            set_template(directory, args.chat_template)
        try:
            lineage |= templates.settle(directory, args.date, *(getattr(args, name) for name in SETTLED))
        except InputError as error:
            raise InputError(f"{args.source}: {error}") from None
        check(
            args.source,
            directory,
            [] if _has_weights(directory) else _available(args.source, hub),
            not args.random_weights,
        )
        check_template(args.source, directory)
        check_code(args.source, directory, args.remote_code)
        check_rewards(args.source, directory, args.rewards)
        # PairRM's tokenizer is read from its tokenizer.json, not by a class.
        if not ("pairwise" in dict(args.rewards) and pairwise.form(directory) == "PairRM"):
            tokenizer_class.check(directory, args.source)
        # A reward model may have a head that its config does not describe; check_rewards knows those.
        whole_weights.check(args.source, directory, names=not args.rewards)
        if not args.rewards and not args.remote_code:
            lineage["architecture"] = architecture(args.source, directory)
        weights = "with weights" if _has_weights(directory) else "without weights"
    link = Path(args.link)
    link.parent.mkdir(parents=True, exist_ok=True)
    link.unlink(missing_ok=True)
    link.symlink_to(os.path.relpath(args.out, link.parent))
    manifest.write(args.manifest, args.out, "fetch_model", lineage, [])
    print(f"{args.source} -> {args.out}, {weights}")


def _has_weights(directory):
    return any(Path(directory).glob("*.safetensors"))


if __name__ == "__main__":
    run(main)
