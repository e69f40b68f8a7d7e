"""Write the card of a model that a policy comes from: base, sft or the reward model.

Its numbers are those of its held-out data. Everything comes from the manifests, the metrics and the config.
The text is in scripts/publish/trained_card.md.j2.

    python -m scripts.publish.write_trained_card --model-name sft --manifest results/models/sft.json \\
        --trained results/models/sft.json --metrics results/training/sft/metrics.json \\
        --config "$CONFIG" --out results/cards/sft.md
"""

from markupsafe import Markup

from prefline import errors, files
from prefline.config import section
from scripts.publish import cards

# By model: a description, its use, its tag and its task on the hub.
KINDS = {
    "base": (
        "A language model, pretrained further on raw text",
        "It continues text; it was not taught to answer.",
        "pretraining",
        "text-generation",
    ),
    "sft": (
        "A chat model, fine-tuned on the assistant's turns of dialogues",
        "Render the messages with its chat template, and let it generate.",
        "sft",
        "text-generation",
    ),
    "reward_model": (
        "A reward model: a sequence classifier with one output, trained on preference pairs (Bradley-Terry)",
        "Render the whole dialogue with its chat template. The output of "
        "`AutoModelForSequenceClassification` is the score; higher is better.",
        "reward-model",
        "text-classification",
    ),
}
MEASURED = ("loss", "perplexity", "accuracy")
HIDDEN = ("train_data", "eval_data", "columns")
# Names of counts in metrics.json: train_rows, train_rows_dropped.
COUNTED = ("rows", "pairs", "documents")


def counts(metrics):
    """Return [(what, number kept, number dropped)] of the training data, from metrics.json (dict)."""
    found = [(name, metrics.get(f"train_{name}"), metrics.get(f"train_{name}_dropped")) for name in COUNTED]
    return [(name, kept, sum((dropped or {}).values())) for name, kept, dropped in found if kept is not None]


def card(name, given):
    """Return the whole card (str), metadata first; given: dict, as cards.read returns it."""
    from huggingface_hub import ModelCardData

    config, params = given["config"], given["trained"]["lineage"]["params"]
    about, use, tag, task = KINDS[name]
    family = cards.ancestry(config, name)
    used = [config["models"][one]["train_data"] for one, source in family if source is None]
    base, datasets = cards.hub_ids(family[-1][1], used)
    metadata = ModelCardData(
        base_model=base,
        datasets=datasets,
        license=config["publish"]["license"],
        library_name="transformers",
        pipeline_tag=task,
        tags=["prefline", tag],
        model_name=name,
    )
    return cards.rendered(
        "trained_card.md.j2",
        **given,
        hidden=HIDDEN,
        measured=MEASURED,
        name=name,
        about=about,
        use=Markup(use),
        scores=name == "reward_model",
        metadata=Markup(metadata.to_yaml()),
        data=[("Training data", params["train_data"]), ("Held-out data", params["eval_data"])],
        ancestry=family[1:],
        counts=counts(given["metrics"]),
    )


def main(argv=None):
    parser = section.parser(__doc__)
    parser.add_argument("--model-name", choices=list(KINDS), required=True, help="the model's name")
    cards.add_flags(parser)
    args = parser.parse_args(argv)
    files.write_text(args.out, card(args.model_name, cards.read(args)))


if __name__ == "__main__":
    errors.run(main)
