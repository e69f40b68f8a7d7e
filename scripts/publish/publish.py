"""Push a model to the hub: its weights, its adapters or both, its card, and its pairs if asked to.

Runs at an explicit request only: no other target needs it. A new repository is private unless
publish.private is false; the visibility of an existing one stays unchanged. Files that the hub already has
are not sent again, and without changes there is no new commit. So repeat a push that was interrupted. The
token comes from the environment (HF_TOKEN) or from `hf auth login`.

Adapters go to NAMESPACE/NAME-MODEL-adapter, without the held-out rows that a merge needs. Their
adapter_config.json and card name the model that they were trained on, and its commit: PEFT loads both.

    python -m scripts.publish.publish --policy dpo-1 --namespace org --name my-experiment --private true \\
        --model results/models/dpo-1 --manifest results/models/dpo-1.json --card results/cards/dpo-1.md \\
        --adapter results/adapters/dpo-1 --base results/published/sft.json \\
        --pairs results/samples/sft/preferences.parquet --pairs-card results/cards/dpo-1-pairs.md \\
        --out results/published/dpo-1.json
"""

import json
from pathlib import Path

from prefline import errors, files
from prefline.config import section
from prefline.data import sources
from prefline.errors import InputError

# Files of adapters that stay here: how to merge them, with rows of the data.
PRIVATE = ("training.json",)


def model_files(model, manifest):
    """Return {path in the repository: local path} of a directory; raise InputError for a changed file."""
    found = {}
    for name, sha in files.read_json(manifest)["files"].items():
        path = Path(model, name)
        if not path.is_file() or files.sha256(path) != sha:
            raise InputError(f"{path}: differs from {manifest}; delete the model to have it made again")
        found[name] = str(path)
    return found


def adapter_files(adapter, card, base):
    """Return {path in the repository: local path or bytes} of adapters; base: as base_of returns it."""
    found = model_files(adapter, f"{adapter}.json")
    found = {name: path for name, path in found.items() if name not in PRIVATE}
    settings = files.read_json(Path(adapter) / "adapter_config.json")
    settings |= {"base_model_name_or_path": base["repository"], "revision": base["commit"]}
    found["adapter_config.json"] = (json.dumps(settings, indent=2, sort_keys=True) + "\n").encode()
    return found | {"README.md": adapter_card(Path(card).read_text(encoding="utf-8"), settings).encode()}


def adapter_card(text, settings):
    """Return the card (str) of adapters, from that of the model that they make when merged."""
    from huggingface_hub import ModelCard

    card = ModelCard(text)
    base, revision = settings["base_model_name_or_path"], settings["revision"]
    card.data.base_model, card.data.base_model_relation = base, "adapter"
    card.data.library_name = "peft"
    about = (
        f"These are adapters alone (LoRA, rank {settings['r']}), for PEFT: load them on `{base}` at the "
        f"revision `{revision}`. The numbers and the hashes below are of the model that they make when "
        "merged.\n"
    )
    title, _, rest = card.text.lstrip().partition("\n")
    return f"---\n{card.data.to_yaml()}\n---\n\n{title}\n\n{about}{rest}"


def base_of(path):
    """Return where the model that adapters were trained on is: {"repository", "commit"}.

    path: what `publish` wrote of it, or the manifest of a model of the hub.
    """
    found = files.read_json(path)
    if isinstance(found, list):
        return next(one for one in found if one["holds"] == "weights")
    name, _, _ = sources.parse_hub(found["lineage"]["params"]["source"])
    return {"repository": name, "commit": found["lineage"]["params"]["commit"]}


def pair_files(pairs):
    """Return {path in the repository: local path} of pairs, named after the policies that were sampled."""
    return {f"{Path(path).parent.name}.parquet": path for path in pairs}


def push(repository, holds, found, private, message):
    """Push the files `found`; return a dict of repository, holds, kind, commit, and whether it is private.

    repository: NAMESPACE/NAME; holds: "weights", "adapters" or "pairs". Raises InputError if the hub refuses.
    """
    from huggingface_hub import CommitOperationAdd, HfApi, errors

    api, kind = HfApi(), "dataset" if holds == "pairs" else "model"
    operations = [CommitOperationAdd(name, path) for name, path in sorted(found.items())]
    try:
        api.create_repo(repository, repo_type=kind, private=private, exist_ok=True)
        made = api.create_commit(repository, operations, commit_message=message, repo_type=kind)
        return {
            "repository": repository,
            "holds": holds,
            "kind": kind,
            "commit": made.oid,
            "private": api.repo_info(repository, repo_type=kind).private,
        }
    except (errors.HfHubHTTPError, errors.LocalTokenNotFoundError, OSError, RuntimeError) as error:
        # The library's own words may quote the request's headers.
        status = getattr(getattr(error, "response", None), "status_code", "unknown")
        raise InputError(
            f"{repository} cannot be pushed ({type(error).__name__}, status {status}); check "
            "publish.namespace, the network, and that HF_TOKEN may write there; a new push sends the rest"
        ) from None


def main(argv=None):
    parser = section.parser(__doc__)
    parser.add_argument("--policy", required=True, help="the name of the policy, or of another model")
    section.add(parser, "publish", "namespace", "name", "private")
    parser.add_argument("--model", nargs="*", required=True, help="its directory; none: only its adapters")
    parser.add_argument("--manifest", required=True, help="its manifest (json)")
    parser.add_argument("--card", required=True, help="its card (Markdown)")
    parser.add_argument("--adapter", nargs="*", required=True, help="directory of its adapters, or none")
    parser.add_argument(
        "--base", nargs="*", required=True, help="of adapters: what they were trained on, as pushed (json)"
    )
    parser.add_argument("--pairs", nargs="*", required=True, help="preferences.parquet files to push, too")
    parser.add_argument(
        "--pairs-card", nargs="*", required=True, help="their card, if there are any (Markdown)"
    )
    parser.add_argument("--out", required=True, help="what was pushed where (json)")
    args = parser.parse_args(argv)

    if args.namespace is None:
        raise InputError("publish.namespace is null; set it to your user or organization on the hub")
    repository = f"{args.namespace}/{args.name}-{args.policy}"
    message = f"{args.policy}, manifest {files.sha256(args.manifest)[:12]}"
    planned = [
        (repository, "weights", model_files(model, args.manifest) | {"README.md": args.card})
        for model in args.model
    ]
    planned += [
        (f"{repository}-adapter", "adapters", adapter_files(adapter, args.card, base_of(base)))
        for adapter, base in zip(args.adapter, args.base, strict=True)
    ]
    if args.pairs:
        found = pair_files(args.pairs) | dict(zip(["README.md"], args.pairs_card, strict=True))
        planned.append((f"{repository}-pairs", "pairs", found))
    pushed = [push(*one, args.private, message) for one in planned]
    for one in pushed:
        print(f"{one['kind']} {one['repository']} at {one['commit']}{', private' if one['private'] else ''}")
    files.write_json(args.out, pushed)


if __name__ == "__main__":
    errors.run(main)
