"""Write a policy's model card: the README.md that the hub shows, with metadata that it reads.

What the model is made from, how it was trained, what it gave and how sure that is, what it was never tested
for, and how its files can be traced. Everything comes from the manifest, the metrics, the config and the
win rates; only the licence is the publisher's word. The prose stands in scripts/report/card.md.j2.

    python -m scripts.report.write_model_card --policy dpo-1 --manifest results/models/dpo-1.json \\
        --metrics results/training/dpo-1/metrics.json --winrate results/winrate.json \\
        --pairs results/samples/sft/tokenized.json --config "$CONFIG" \\
        --out results/cards/dpo-1.md
"""

import json
from pathlib import Path

import jinja2

from prefline import errors, files
from prefline.config import section
from prefline.data import prompts, sources

START = "sft"
TEMPLATE = Path(__file__).parent / "card.md.j2"
MEASURED = ("loss", "rewards/margins", "rewards/accuracies", "reward", "kl", "completions/mean_length")
HIDDEN = (
    "tokenized",
    "ref_logps",
    "prompts",
    "reference",
    "reward_models",
)  # paths, which the lineage has with their hashes


def ancestry(config):
    """The models that the start policy descends from: list of (name, source), the last with a source."""
    found, name = [], START
    while True:
        source = config["models"][name]["source"]
        found.append((name, source))
        if source is not None:
            return found
        name = config["models"][name]["init"]


def hub_ids(config):
    """(id of the base model on the hub or None, sorted ids of the datasets on the hub) of an experiment."""
    base = sources.parse_hub(ancestry(config)[-1][1])
    used, given = prompts.sources_of(config["prompts"]), prompts.given_pairs(config["prompts"])
    used = [*used, given["source"]] if given else used
    for name, source in ancestry(config):
        if source is None:
            used += [config["models"][name]["train_data"]]
    named = [sources.parse_hub(source) for source in used if source]
    return base[0] if base else None, sorted({hub[0] for hub in named if hub})


def metadata(policy, config, rates):
    """The card's huggingface_hub.ModelCardData. rates: the policy's, of winrate.json."""
    from huggingface_hub import EvalResult, ModelCardData

    base, datasets = hub_ids(config)
    run = config["runs"][policy.rsplit("-", 1)[0]]
    method = run.get("method", config["train"]["method"])
    loss = run.get("loss_type", config["train"]["loss_type"]) if method == "preference" else method
    overall = rates["overall"]["win_rate_adjusted"]
    return ModelCardData(
        base_model=base,
        datasets=datasets or None,
        license=config["publish"]["license"],
        library_name="transformers",
        pipeline_tag="text-generation",
        tags=["prefline", "preference-optimization", *([loss] if isinstance(loss, str) else loss)],
        model_name=policy,
        eval_results=None
        if overall is None
        else [
            EvalResult(
                task_type="text-generation",
                dataset_type="mt_bench",
                dataset_name="MT-Bench, pairwise against the start policy",
                metric_type="win_rate_adjusted",
                metric_value=overall,
            )
        ],
    )


def way(method, params):
    """How the policy was trained (Markdown). params: dict, those of its training."""
    return f"the loss `{params['loss_type']}`" if method == "preference" else f"the method `{method}`"


def public(source):
    """A source (str) as others may read it: of a path elsewhere on this machine, its last part."""
    return f"…/{Path(source).name}" if Path(str(source)).is_absolute() else source


def percent(share):
    return "-" if share is None else f"{100 * share:.1f} %"


def cell(text):
    """A text as it stands in a cell of a Markdown table."""
    return str(text).replace("|", "\\|")


def card(policy, config, manifest, metrics, made, pairs):
    """The whole card (str): metadata between dashes, then Markdown.

    made: winrate.json; pairs: what tokenized.json holds, for each policy that the pairs are of; none where it
    learnt from rewards of what it said.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATE.parent),
        autoescape=False,  # it is Markdown
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters.update(percent=percent, cell=cell, public=public)
    rates, lineage = made["win_rates"][policy], manifest["lineage"]
    run, iteration = policy.rsplit("-", 1)
    shown = {key: value for key, value in lineage["params"].items() if key not in HIDDEN}
    before = {name: metrics.get(f"eval_{name}_before") for name in MEASURED}
    return environment.get_template(TEMPLATE.name).render(
        policy=policy,
        run=run,
        iteration=iteration,
        way=way(config["runs"][run].get("method", config["train"]["method"]), lineage["params"]),
        metadata=metadata(policy, config, rates).to_yaml(),
        config=config,
        prompt_sources=prompts.sources_of(config["prompts"]),
        given_pairs=prompts.given_pairs(config["prompts"]),
        made=made,
        rates=rates,
        slices=[("all", rates["overall"]), *rates["category"].items()],
        ancestry=ancestry(config),
        kept=pairs
        and {split: sum(one["splits"][split]["kept"] for one in pairs) for split in ("train", "test")},
        metrics=metrics,
        hyperparameters=[(key, json.dumps(value)) for key, value in shown.items()],
        measured=[
            (name, value, metrics[f"eval_{name}"]) for name, value in before.items() if value is not None
        ],
        license=config["publish"]["license"],
        lineage=lineage,
        packages=", ".join(f"{name} {version}" for name, version in lineage["packages"].items() if version),
        files=sorted(manifest["files"].items()),
        parents=sorted(lineage["parents"].items()),
    )


def main(argv=None):
    parser = section.parser(__doc__)
    parser.add_argument("--policy", required=True, help="the policy's name")
    parser.add_argument("--manifest", required=True, help="its manifest (json)")
    parser.add_argument("--metrics", required=True, help="metrics.json of its training")
    parser.add_argument("--winrate", required=True, help="winrate.json")
    parser.add_argument(
        "--pairs", nargs="*", required=True, help="tokenized.json of each policy whose pairs it learnt"
    )
    parser.add_argument("--config", type=json.loads, required=True, help="the config as it was used, as JSON")
    parser.add_argument("--out", required=True, help="the card (Markdown)")
    args = parser.parse_args(argv)
    text = card(
        args.policy,
        args.config,
        files.read_json(args.manifest),
        files.read_json(args.metrics),
        files.read_json(args.winrate),
        [files.read_json(path) for path in args.pairs],
    )
    files.write_text(args.out, text)


if __name__ == "__main__":
    errors.run(main)
