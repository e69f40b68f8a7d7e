"""Train a reward model on preference pairs: a sequence classifier with one output.

Bradley-Terry: the loss of a pair is −log sigmoid(reward of chosen − reward of rejected). The reward is read
at the last token of the rendered dialogue, by training, by the workflow and by any program that renders it
with the model's chat template. That template is the start's, without white space behind the last end token;
the padding token of the model's config and tokenizer ends no dialogue. Pairs with a dialogue over
--max-length, or of two equal ones, are dropped and counted.

    reads   prompt (or none), chosen, rejected, in the forms of prefline/data/forms.py
    writes  a model directory for AutoModelForSequenceClassification; metrics.json with the held-out accuracy

    python -m scripts.models.train_reward_model --model results/models/base --train-data train.jsonl \
        --eval-data test.jsonl --columns '{"prompt": "prompt", "chosen": "chosen", "rejected": "rejected"}' \
        --max-length 256 --learning-rate 5e-4 ... --out results/models/reward_model
"""

import functools
import json

from prefline.config import section
from prefline.data import reading, sources
from prefline.errors import InputError, run
from prefline.rewards import templates
from prefline.text import chat
from prefline.training import adapters, arguments, evaluation, process, results, weights
from prefline.training.settings import Settings

SIDES = ("chosen", "rejected")
# Dialogues in which tokens to pad with are looked for.
SEEN = 1000


def read(given, columns, rules, tokenizer, max_length, seed):
    """Return (pairs, names, counts): dicts of chosen_ids and rejected_ids, the place of each, counts (dict).

    rules: as reading.policy gives them; the rest as reading.Data takes it.
    """
    special = functools.partial(chat.special_tokens_in, tokenizer)
    write = functools.partial(chat.calls_as_text, tokenizer)
    data = reading.Data("pairs", given, columns, rules, special, write=write)
    kept = []
    for row in data:
        try:
            pair = {f"{side}_ids": dialogue_ids(tokenizer, row["messages"], row[side]) for side in SIDES}
        except InputError as error:
            data.refuse(row, error)
            continue
        if pair["chosen_ids"] == pair["rejected_ids"]:
            data.drop(row, "identical")
        elif max(map(len, pair.values())) > max_length:
            data.drop(row, "too_long")
        else:
            kept.append(row | {"ids": pair})
    kept = data.mix(kept, lambda row: json.dumps([row["messages"], row["chosen"], row["rejected"]]), seed)
    data.finish()
    return [row["ids"] for row in kept], [row["where"] for row in kept], data.as_dict()


def dialogue_ids(tokenizer, messages, answer):
    """Return the ids (list of int) of a whole rendered dialogue: `messages`, then the answer (str)."""
    return chat.dialogue_ids(tokenizer, [*messages, {"role": "assistant", "content": answer}])


def padding_id(tokenizer, pairs):
    """Return the token (int) to pad with: the tokenizer's own if no dialogue has it, or one that ends none.

    The classifier reads its reward from the last token that is no padding: were padding the end token, as
    many tokenizers are made to do, it would read one position too early.
    """
    dialogues = [pair[side] for pair in pairs for side in ("chosen_ids", "rejected_ids")]
    ends = {ids[-1] for ids in dialogues}
    used = ends.union(*dialogues[:SEEN])
    own = [tokenizer.pad_token_id, tokenizer.unk_token_id, *sorted(chat.special_tokens(tokenizer))]
    candidates = [token for token in own if token is not None]
    for excluded in (used, ends):
        found = next(
            (token for token in [*candidates, *range(len(tokenizer))] if token not in excluded), None
        )
        if found in candidates:
            return found
    return found


def bradley_terry(logits):
    """Return (losses, margins), float32 (N,), of a classifier's logits (2N, 1), chosen's first."""
    import torch

    chosen, rejected = logits.squeeze(-1).float().chunk(2)
    return -torch.nn.functional.logsigmoid(chosen - rejected), chosen - rejected


def mean_loss_and_accuracy(rewarding):
    """Return {"loss": mean Bradley-Terry loss, "accuracy": share ranked right, no ties} of held-out pairs."""
    import torch

    def measure(model, batch):
        losses, margins = bradley_terry(model(**batch, use_cache=False).logits)
        return torch.stack([losses.sum(), (margins > 0).float().sum()])

    loss, right = evaluation.held_out(rewarding, measure).tolist()
    pairs = len(rewarding.eval_dataset)
    return {"loss": loss / pairs, "accuracy": right / pairs}


def main(argv=None):
    parser = section.parser(__doc__)
    section.add(parser, "models.reward_model", "train_data", "eval_data", "columns", "max_length")
    section.add(parser, "data")
    Settings.add_flags(parser)
    args = parser.parse_args(argv)

    # Pin branches to commits: if a branch moves, old checkpoints must not be resumed.
    args.train_data, args.eval_data = map(sources.pinned, (args.train_data, args.eval_data))
    inputs = sources.data_files(args.train_data, args.eval_data)
    settings = Settings.of(vars(args))
    key = results.work_key(settings, "scripts/models/train_reward_model.py", [args.model, *inputs])
    parents = results.parents(settings, inputs)
    if results.restore(settings, key, "train_reward_model", parents):
        return
    tokenizer = chat.load_tokenizer(args.model)
    tokenizer.chat_template = templates.ending(tokenizer, args.model)
    rest = (args.columns, reading.policy(args), tokenizer, args.max_length, args.seed)
    train, names, counts = read(args.train_data, *rest)
    test, _, test_counts = read(args.eval_data, *rest)
    print(f"{len(train)} pairs; {len(test)} held out")

    process.quiet()
    adapters.import_packages(args.peft)
    from datasets import Dataset
    from transformers import AutoModelForSequenceClassification
    from trl import RewardConfig, RewardTrainer

    from prefline.training import loop, repeated_rows

    class Rewarding(repeated_rows.Weighted, RewardTrainer):
        """TRL's, with the mean over the pairs of a step, however they are cut into batches."""

        def rows(self, batch):
            return len(batch["input_ids"]) // 2

        def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
            weights = inputs.pop("weights")
            _, outputs = super().compute_loss(model, inputs, return_outputs=True)
            losses, _ = bradley_terry(outputs.logits)
            return self.mean(losses, weights, num_items_in_batch)

    tokenizer.pad_token = tokenizer.convert_ids_to_tokens(padding_id(tokenizer, train + test))
    rewarding = Rewarding(
        model=weights.load(settings, AutoModelForSequenceClassification, num_labels=1),
        args=arguments.make(settings, RewardConfig, max_length=None),
        train_dataset=Dataset.from_list(train),
        eval_dataset=Dataset.from_list(test),
        processing_class=tokenizer,
    )
    adapters.unrounded(rewarding.model)
    before = mean_loss_and_accuracy(rewarding)
    trained = loop.fit(rewarding, settings, key, names, lambda: mean_loss_and_accuracy(rewarding))
    after = mean_loss_and_accuracy(rewarding)
    metrics = {
        **{f"eval_{name}_before": value for name, value in before.items()},
        **{f"eval_{name}": value for name, value in after.items()},
        "train_pairs": len(train),
        "train_data": counts,
        "eval_pairs": len(test),
        "eval_data": test_counts,
        **trained,
    }
    print(f"held-out accuracy {before['accuracy']:.3f} -> {after['accuracy']:.3f}")
    dialogues = [(pair[side], []) for pair in test for side in ("chosen_ids", "rejected_ids")]
    results.save(rewarding.model, settings, "train_reward_model", parents, dialogues, tokenizer.chat_template)
    results.finish(settings, key, metrics)


if __name__ == "__main__":
    run(main)
