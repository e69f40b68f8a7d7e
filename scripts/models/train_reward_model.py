"""Train a reward model on preference pairs: a sequence classifier with one output.

Bradley-Terry: the loss of a pair is −log sigmoid(reward of chosen − reward of rejected). Both dialogues are
templated as everywhere (prefline/text/chat.py): one BOS, and at the end the end-of-turn token, where the
reward is read. Pairs with a dialogue over --max-length, or of two equal ones, are dropped and counted.

    reads   prompt: str or messages (or none), chosen, rejected: str, messages, or whole dialogues
    writes  a model directory for AutoModelForSequenceClassification; metrics.json with the held-out accuracy

    python -m scripts.models.train_reward_model --model results/models/base --train-data train.jsonl \
        --eval-data test.jsonl --columns '{"prompt": "prompt", "chosen": "chosen", "rejected": "rejected"}' \
        --max-length 256 --learning-rate 5e-4 ... --out results/models/reward_model
"""

from prefline.config import section
from prefline.data import sources
from prefline.errors import InputError, run
from prefline.text import chat
from prefline.training import adapters, arguments, evaluation, process, results, weights
from prefline.training.settings import Settings


def dialogue(prompt, answer, where):
    """(messages, text): what was asked, and the assistant's answer to it.

    prompt: str, messages, or None where `answer` is a whole dialogue; answer: str, or messages that end with
    the assistant, with or without those of the prompt before it. Raises InputError, naming `where`.
    """
    asked = [] if prompt is None else chat.as_messages(prompt, where)
    if isinstance(answer, str):
        answer = [{"role": "assistant", "content": answer}]
    *before, last = chat.as_messages(answer, where)
    if last["role"] != "assistant":
        raise InputError(f"{where}: chosen and rejected must end with the assistant, not the {last['role']}")
    messages = before if before[: len(asked)] == asked else asked + before
    if not messages:
        raise InputError(f"{where}: has an answer but no prompt; name its column under `columns`")
    return messages, last["content"]


def read(source, columns, tokenizer, max_length):
    """(pairs, names, dropped): dicts of chosen_ids and rejected_ids, where each stands, counts by reason."""
    pairs, names, dropped = [], [], {"identical": 0, "too_long": 0}
    for where, row in sources.read_rows(source, columns):
        pair = {}
        for side in ("chosen", "rejected"):
            messages, text = dialogue(row.get("prompt"), row[side], where)
            try:
                prompt, completion = chat.prompt_and_completion_ids(tokenizer, messages, text)
            except InputError as error:
                raise InputError(f"{where}: {error}") from None
            pair[f"{side}_ids"] = prompt + completion
        if pair["chosen_ids"] == pair["rejected_ids"]:
            dropped["identical"] += 1
        elif max(map(len, pair.values())) > max_length:
            dropped["too_long"] += 1
        else:
            pairs.append(pair)
            names.append(where)
    if not pairs:
        raise InputError(f"{source}: no pair is left to learn from; dropped: {dropped}")
    return pairs, names, dropped


def padding_id(tokenizer):
    """The token to pad with: any but the end token.

    The classifier reads its reward from the last token that is no padding: were padding the end token, as
    many tokenizers without one of their own are made to do, it would read one position too early.
    """
    candidates = (tokenizer.pad_token_id, tokenizer.bos_token_id, tokenizer.unk_token_id, 0, 1)
    return next(token for token in candidates if token not in (None, tokenizer.eos_token_id))


def bradley_terry(logits):
    """(losses, margins), float32 (N,), of a classifier's logits (2N, 1), chosen's first."""
    import torch

    chosen, rejected = logits.squeeze(-1).float().chunk(2)
    return -torch.nn.functional.logsigmoid(chosen - rejected), chosen - rejected


def mean_loss_and_accuracy(rewarding):
    """{"loss": mean Bradley-Terry loss, "accuracy": part ranked right, ties as wrong} of held-out pairs."""
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
    Settings.add_flags(parser)
    args = parser.parse_args(argv)

    # A branch that has moved is other data, which no checkpoint of before belongs to.
    args.train_data, args.eval_data = map(sources.pinned, (args.train_data, args.eval_data))
    inputs = sources.local_files(args.train_data, args.eval_data)
    settings = Settings.of(vars(args))
    key = results.work_key(settings, "scripts/models/train_reward_model.py", [args.model, *inputs])
    parents = results.parents(settings, inputs)
    if results.restore(settings, key, "train_reward_model", parents):
        return
    tokenizer = chat.load_tokenizer(args.model)
    train, names, dropped = read(args.train_data, args.columns, tokenizer, args.max_length)
    test, _, test_dropped = read(args.eval_data, args.columns, tokenizer, args.max_length)
    print(f"{len(train)} pairs, dropped {dropped}; {len(test)} held out, dropped {test_dropped}")

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

    tokenizer.pad_token = tokenizer.convert_ids_to_tokens(padding_id(tokenizer))
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
        "train_pairs_dropped": dropped,
        "eval_pairs": len(test),
        "eval_pairs_dropped": test_dropped,
        **trained,
    }
    print(f"held-out accuracy {before['accuracy']:.3f} -> {after['accuracy']:.3f}")
    dialogues = [(pair[side], []) for pair in test for side in ("chosen_ids", "rejected_ids")]
    results.save(rewarding.model, settings, "train_reward_model", parents, dialogues)
    results.finish(settings, key, metrics)


if __name__ == "__main__":
    run(main)
