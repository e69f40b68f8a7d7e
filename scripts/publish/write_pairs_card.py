"""Write the card of the pairs that a policy learnt from: the README.md of their dataset on the hub.

The card has the pairs' sources, how they were sampled, ranked and filtered, with counts, how to load them,
and the licence that the publisher sets. It has no row of the data. The text is in
scripts/publish/pairs_card.md.j2.

    python -m scripts.publish.write_pairs_card --policy dpo-1 --sampled sft \\
        --pairs results/samples/sft/preferences.parquet --counts results/samples/sft/preferences.json \\
        --config "$CONFIG" --out results/cards/dpo-1-pairs.md
"""

import json
from pathlib import Path

from markupsafe import Markup

from prefline import errors, files
from prefline.config import section
from prefline.data import prompts, sources
from prefline.text import markdown
from scripts.publish import cards

COLUMNS = {
    "prompt_id": "a hash of the prompt",
    "split": "train, or test for pairs held out by a hash of the prompt",
    "messages": "the prompt as chat messages",
    "chosen, rejected": "the better and the worse answer",
    "chosen_reward, rejected_reward": "their rewards, less the length penalty",
    "chosen_win_probability, rejected_win_probability": "probability of winning against another completion",
    "chosen_sample, rejected_sample": "numbers of the completions",
    "prompt_ids, chosen_ids, rejected_ids": "their tokens, of the model that was sampled",
}

# The hub's names of sizes, by their limits.
SIZES = {10**3: "n<1K", 10**4: "1K<n<10K", 10**5: "10K<n<100K", 10**6: "100K<n<1M"}


def counts_of(file, counts):
    """Return rows of the table of filters: [{file, of, kept, dropped}]. counts: of preferences.json."""
    rows = []
    for split, one in (counts.get("splits") or {"all": counts}).items():
        kept = sum(one["kept"].values()) if isinstance(one["kept"], dict) else one["kept"]
        dropped = [(name.replace("_", " "), number) for name, number in one["dropped"].items() if number]
        rows.append({"file": file, "of": split, "kept": kept, "dropped": dropped})
    return rows


def kept_of(counts):
    """Return {split: number of pairs} of the contents of preferences.json."""
    return counts["kept"] if "kept" in counts else {s: one["kept"] for s, one in counts["splits"].items()}


def metadata(policy, config, number):
    """Return the card's huggingface_hub.DatasetCardData. number: of pairs."""
    from huggingface_hub import DatasetCardData

    return DatasetCardData(
        license=config["publish"]["license"],
        pretty_name=f"Preference pairs of {policy}",
        size_categories=[next((name for most, name in SIZES.items() if number < most), "n>1M")],
        tags=["prefline", "preference-optimization"],
    )


def card(policy, pairs, counts, sampled, config):
    """Return the whole card (str): metadata between dashes, then Markdown.

    pairs: paths of preferences.parquet; counts: contents of preferences.json of each; sampled: policies whose
    completions were ranked; config: dict.
    """
    given = prompts.given_pairs(config["prompts"])
    made, rows = [], []
    for path, found in zip(map(Path, pairs), counts, strict=True):
        name = path.parent.name
        origin = Markup(f"completions of {markdown.code(name)}") if name in sampled else "given pairs"
        file = f"{name}.parquet"
        made.append({"file": file, "kept": kept_of(found), "origin": origin, "sha256": files.sha256(path)})
        rows += counts_of(file, found)
    number = sum(sum(one["kept"].values()) for one in made)
    return (
        cards.environment()
        .get_template("pairs_card.md.j2")
        .render(
            config=config,
            policy=policy,
            metadata=Markup(metadata(policy, config, number).to_yaml()),
            made=made,
            counts=rows,
            columns=COLUMNS,
            rewards={
                side: Markup(f"{side}_reward" if sampled else "null") for side in ("chosen", "rejected")
            },
            sampled=[one for one in made if one["origin"] != "given pairs"],
            prompt_sources=[one["source"] for one in sources.listed(config["prompts"]["source"])],
            given=[one["source"] for one in sources.listed(given["source"])]
            if given and any(one["origin"] == "given pairs" for one in made)
            else [],
            repository=Markup(
                f"{config['publish']['namespace'] or 'NAMESPACE'}/{config['publish']['name']}-{policy}-pairs"
            ),
            license=config["publish"]["license"],
        )
    )


def main(argv=None):
    parser = section.parser(__doc__)
    parser.add_argument("--policy", required=True, help="the policy's name")
    parser.add_argument(
        "--pairs", nargs="+", required=True, help="preferences.parquet files that it learnt from"
    )
    parser.add_argument("--counts", nargs="+", required=True, help="preferences.json of each, in that order")
    parser.add_argument("--sampled", nargs="*", required=True, help="policies whose completions were ranked")
    parser.add_argument("--config", type=json.loads, required=True, help="the config as it was used, as JSON")
    parser.add_argument("--out", required=True, help="the card (Markdown)")
    args = parser.parse_args(argv)
    counts = [files.read_json(path) for path in args.counts]
    files.write_text(args.out, card(args.policy, args.pairs, counts, args.sampled, args.config))


if __name__ == "__main__":
    errors.run(main)
