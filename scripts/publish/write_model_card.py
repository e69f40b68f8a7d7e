"""Write a policy's model card: the README.md that the hub shows, with metadata that it reads.

The card has the model's data and training, its win rates with their uncertainty, what it was not tested
for, and the hashes that trace its files. Everything comes from the manifest, the metrics, the config and
the win rates, except the licence, which the publisher sets. The text is in scripts/publish/card.md.j2.

    python -m scripts.publish.write_model_card --policy dpo-1 --manifest results/models/dpo-1.json \\
        --trained results/models/dpo-1.json \\
        --metrics results/training/dpo-1/metrics.json --winrate results/winrate.json \\
        --pairs results/samples/sft/tokenized.json --config "$CONFIG" \\
        --out results/cards/dpo-1.md
"""

from markupsafe import Markup

from prefline import errors, files
from prefline import policies as naming
from prefline.config import section
from prefline.data import prompts, sources
from prefline.judging import comparisons
from prefline.text import markdown
from scripts.publish import cards

START = "sft"
MEASURED = ("loss", "rewards/margins", "rewards/accuracies", "reward", "kl", "completions/mean_length")
# Params that are paths; the lineage has them with their hashes.
HIDDEN = ("tokenized", "ref_logps", "prompts", "reference", "reward_models")


def metadata(policy, config, rates):
    """Return the card's huggingface_hub.ModelCardData. rates: the policy's entry of winrate.json."""
    from huggingface_hub import EvalResult, ModelCardData

    family, given = cards.ancestry(config, START), prompts.given_pairs(config["prompts"])
    used = [config["prompts"]["source"], *([given["source"]] if given else [])]
    used += [config["models"][name]["train_data"] for name, source in family if source is None]
    base, datasets = cards.hub_ids(family[-1][1], used)
    run = config["runs"][naming.run_of(policy)]
    method = run.get("method", config["train"]["method"])
    loss = run.get("loss_type", config["train"]["loss_type"]) if method == "preference" else method
    overall = rates["overall"]["win_rate_adjusted"]
    return ModelCardData(
        base_model=base,
        datasets=datasets,
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
    """Return the training method (Markdown). params: dict of the training's params."""
    kind, name = ("loss", params["loss_type"]) if method == "preference" else ("method", method)
    return Markup(f"the {kind} {markdown.code(str(name))}")


def card(policy, given, made, pairs):
    """Return the whole card (str): metadata between dashes, then Markdown.

    given: dict, as cards.read returns it; made: winrate.json; pairs: contents of tokenized.json of each
    policy whose pairs trained this one; empty if it learnt from rewards of its own samples.
    """
    config, params = given["config"], given["trained"]["lineage"]["params"]
    rates, given_pairs = made["win_rates"][policy], prompts.given_pairs(config["prompts"])
    run, subject = naming.run_of(policy), naming.subject_of(policy)
    return cards.rendered(
        "card.md.j2",
        **given,
        hidden=HIDDEN,
        measured=MEASURED,
        policy=policy,
        run=run,
        iteration=policy.rsplit("-", 1)[1],
        subject=subject,
        over_seeds=made["repeated"].get(subject, {}).get("overall"),
        way=way(config["runs"][run].get("method", config["train"]["method"]), params),
        metadata=Markup(metadata(policy, config, rates).to_yaml()),
        prompt_sources=[one["source"] for one in sources.listed(config["prompts"]["source"])],
        given_pairs=given_pairs and [one["source"] for one in sources.listed(given_pairs["source"])],
        made=made,
        rates=rates,
        comparisons=comparisons.of_policy(subject, made["comparisons"]),
        slices=[("all", rates["overall"]), *rates["category"].items()],
        ancestry=cards.ancestry(config, START),
        kept=pairs
        and {split: sum(one["splits"][split]["kept"] for one in pairs) for split in ("train", "test")},
    )


def main(argv=None):
    parser = section.parser(__doc__)
    parser.add_argument("--policy", required=True, help="the policy's name")
    cards.add_flags(parser)
    parser.add_argument("--winrate", required=True, help="winrate.json")
    parser.add_argument(
        "--pairs", nargs="*", required=True, help="tokenized.json of each policy whose pairs it learnt"
    )
    args = parser.parse_args(argv)
    pairs = [files.read_json(path) for path in args.pairs]
    text = card(args.policy, cards.read(args), files.read_json(args.winrate), pairs)
    files.write_text(args.out, text)


if __name__ == "__main__":
    errors.run(main)
