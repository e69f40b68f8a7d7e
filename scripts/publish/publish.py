"""Push a policy to the hub: its model, its adapter where it has one, and its card; its pairs if asked to.

Only at an explicit request: no other target needs this. A repository is made private unless the config says
otherwise; one that exists keeps what it is. Files that are there already are not sent again, and where
nothing changed there is no new commit, so a push that broke off is simply repeated. The token comes from the
environment (HF_TOKEN) or from `hf auth login`.

    python -m scripts.publish.publish --policy dpo-1 --namespace org --name my-experiment --private true \\
        --model results/models/dpo-1 --manifest results/models/dpo-1.json --card results/cards/dpo-1.md \\
        --pairs results/samples/sft/preferences.parquet --out results/published/dpo-1.json
"""

from pathlib import Path

from prefline import errors, files
from prefline.config import section
from prefline.errors import InputError


def model_files(model, manifest, card):
    """{path in the repository: path here} of a policy; InputError for a file that is not what it was."""
    found = {"README.md": card}
    for name, sha in files.read_json(manifest)["files"].items():
        path = Path(model, name)
        if not path.is_file() or files.sha256(path) != sha:
            raise InputError(f"{path}: is not what {manifest} says; delete the model to have it made again")
        found[name] = str(path)
    return found


def pair_files(pairs):
    """{path in the repository: path here} of the pairs of each policy that said them."""
    return {f"{Path(path).parent.name}.parquet": path for path in pairs}


def push(repository, kind, found, private, message):
    """The address (str) of the commit that holds the files `found`, and whether the repository is private.

    repository: NAMESPACE/NAME; kind: "model" or "dataset". Raises InputError where the hub refuses.
    """
    from huggingface_hub import CommitOperationAdd, HfApi, errors

    api = HfApi()
    operations = [CommitOperationAdd(name, path) for name, path in sorted(found.items())]
    try:
        api.create_repo(repository, repo_type=kind, private=private, exist_ok=True)
        made = api.create_commit(repository, operations, commit_message=message, repo_type=kind)
        return {
            "repository": repository,
            "kind": kind,
            "commit": made.oid,
            "private": api.repo_info(repository, repo_type=kind).private,
        }
    except (errors.HfHubHTTPError, errors.LocalTokenNotFoundError, OSError, RuntimeError) as error:
        # The library's own words may quote the request's headers.
        status = getattr(getattr(error, "response", None), "status_code", "unknown")
        raise InputError(
            f"{repository} cannot be pushed ({type(error).__name__}, status {status}); check "
            "publish.namespace, the network, and that HF_TOKEN may write there; what was sent stays"
        ) from None


def main(argv=None):
    parser = section.parser(__doc__)
    parser.add_argument("--policy", required=True, help="the policy's name")
    section.add(parser, "publish", "namespace", "name", "private")
    parser.add_argument("--model", required=True, help="the policy's directory")
    parser.add_argument("--manifest", required=True, help="its manifest (json)")
    parser.add_argument("--card", required=True, help="its card (Markdown)")
    parser.add_argument("--pairs", nargs="*", required=True, help="preferences.parquet files to push, too")
    parser.add_argument("--out", required=True, help="what was pushed where (json)")
    args = parser.parse_args(argv)

    if args.namespace is None:
        raise InputError("publish.namespace is null; set it to your user or organization on the hub")
    repository = f"{args.namespace}/{args.name}-{args.policy}"
    message = f"{args.policy}, manifest {files.sha256(args.manifest)[:12]}"
    pushed = [
        push(repository, "model", model_files(args.model, args.manifest, args.card), args.private, message)
    ]
    if args.pairs:
        pushed.append(push(f"{repository}-pairs", "dataset", pair_files(args.pairs), args.private, message))
    for one in pushed:
        print(f"{one['kind']} {one['repository']} at {one['commit']}{', private' if one['private'] else ''}")
    files.write_json(args.out, pushed)


if __name__ == "__main__":
    errors.run(main)
