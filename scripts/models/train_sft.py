"""Fine-tune a model on chat dialogues, learning from the assistant's tokens only.

Every turn of the assistant is trained on, with its end-of-turn token: the ids that a policy would sample
after the turn's prompt (prefline/text/chat.py), so templates need no `{% generation %}` marks. Of plain
text, all tokens are trained on. Data comes in the forms of prefline/data/forms.py. Rows longer than
--max-length, and dialogues without an assistant, are dropped and counted, never truncated.

    reads   messages, or prompt and completion, or text: str
    writes  a model directory; metrics.json with the held-out loss per token before and after

    python -m scripts.models.train_sft --model results/models/base --train-data train.jsonl \
        --eval-data test.jsonl \
        --columns '{"messages": "messages"}' --max-length 256 --learning-rate 1e-3 ... --out DIR
"""

import functools
import json

from prefline.config import section
from prefline.data import reading, sources
from prefline.errors import InputError, run
from prefline.text import chat
from prefline.training import adapters, arguments, evaluation, experts, probe, process, results, weights
from prefline.training.settings import Settings

IGNORED = -100


def examples(tokenizer, messages):
    """Return the training examples of a dialogue: {"input_ids", "labels"} (lists of int of one length) each.

    Labels are the ids where the assistant speaks, and IGNORED elsewhere. Text after the assistant's last
    turn is left out. A dialogue is one example if each turn's ids begin the next turn's. Templates that
    render earlier answers differently (most drop their reasoning) give one example per turn, as a policy
    would see it.
    """
    speaking = [number for number, message in enumerate(messages) if message["role"] == "assistant"]
    dialogues = [(messages[:number], [messages[number]["content"]]) for number in speaking]
    made = chat.prompts_and_completions(tokenizer, dialogues)
    turns = [(prompt, completion) for prompt, (completion,) in made]
    following = [prompt for prompt, _ in turns[1:]]
    if all(
        longer[: len(prompt) + len(completion)] == prompt + completion
        for (prompt, completion), longer in zip(turns, following, strict=False)
    ):
        return [_example(turns)] if turns else []
    return [_example([turn]) for turn in turns]


def _example(turns):
    """Return the example of `turns`, (prompt ids, completion ids) each, where each begins the next."""
    prompt, completion = turns[-1]
    ids = prompt + completion
    labels = [IGNORED] * len(ids)
    for prompt, completion in turns:
        labels[len(prompt) : len(prompt) + len(completion)] = completion
    return {"input_ids": ids, "labels": labels}


def turn_of(row):
    """Return (prompt ids, completion ids) of an example, split where the assistant first speaks."""
    begin = next(place for place, label in enumerate(row["labels"]) if label != IGNORED)
    return row["input_ids"][:begin], row["input_ids"][begin:]


def text_example(tokenizer, text):
    """Return the example of a plain text, whose tokens are all trained on."""
    (ids,) = chat.document_ids(tokenizer, [text])
    labels = [IGNORED if ids[0] == tokenizer.bos_token_id else ids[0], *ids[1:]]
    return {"input_ids": ids, "labels": labels}


def row_examples(tokenizer, row):
    """Return the `examples` of a row as reading.Data gives it."""
    return [text_example(tokenizer, row["text"])] if "text" in row else examples(tokenizer, row["messages"])


def read(given, columns, rules, tokenizer, max_length, seed):
    """Return (examples, names, counts): training examples, the place of each, and counts of rows (dict).

    rules: as reading.policy gives them; the rest as reading.Data takes it.
    """
    special = functools.partial(chat.special_tokens_in, tokenizer)
    write = functools.partial(chat.calls_as_text, tokenizer)
    data = reading.Data("dialogues", given, columns, rules, special, write=write)
    kept = []
    for row in data:
        try:
            made = row_examples(tokenizer, row)
        except InputError as error:
            data.refuse(row, error)
            continue
        if max(len(one["input_ids"]) for one in made) > max_length:
            data.drop(row, "too_long")
        else:
            kept.append(row | {"examples": made})
    kept = data.mix(kept, lambda row: json.dumps(row.get("messages", row.get("text"))), seed)
    data.finish()
    found = [(one, row["where"]) for row in kept for one in row["examples"]]
    return [one for one, _ in found], [where for _, where in found], data.as_dict()


def main(argv=None):
    parser = section.parser(__doc__)
    section.add(parser, "models.sft", "train_data", "eval_data", "columns", "max_length")
    section.add(parser, "data")
    Settings.add_flags(parser)
    args = parser.parse_args(argv)

    # Pin branches to commits: if a branch moves, old checkpoints must not be resumed.
    args.train_data, args.eval_data = map(sources.pinned, (args.train_data, args.eval_data))
    inputs = sources.data_files(args.train_data, args.eval_data)
    settings = Settings.of(vars(args))
    key = results.work_key(settings, "scripts/models/train_sft.py", [args.model, *inputs])
    parents = results.parents(settings, inputs)
    if results.restore(settings, key, "train_sft", parents):
        return
    tokenizer = chat.load_tokenizer(args.model)
    chat.check_second_turn(tokenizer)
    rest = (args.columns, reading.policy(args), tokenizer, args.max_length, args.seed)
    train, names, counts = read(args.train_data, *rest)
    test, _, test_counts = read(args.eval_data, *rest)
    learnt = sum(label != IGNORED for row in train for label in row["labels"])
    print(f"{len(train)} dialogues with {learnt} tokens to learn; {len(test)} held out")

    process.quiet()
    adapters.import_packages(args.peft)
    from datasets import Dataset
    from transformers import AutoModelForCausalLM
    from trl import SFTConfig, SFTTrainer

    from prefline.training import loop, repeated_rows

    class SFT(repeated_rows.Unlabelled, SFTTrainer):
        """TRL's; on several devices it ends where it does on one."""

    # The head's logits only where something is learnt; TRL cannot do that through an adapter of the head.
    adapted_head = args.peft is not None and "lm_head" in (args.peft["target_modules"] or [])
    model = weights.load(settings, AutoModelForCausalLM)
    experts.balance(model, settings.router_aux_loss_coef)
    probe.ready_for_trainers(model, "right")
    sft = SFT(
        model=model,
        args=arguments.make(
            settings,
            SFTConfig,
            max_length=None,
            loss_type="nll" if adapted_head else "chunked_nll",
            dataset_kwargs={"skip_prepare_dataset": True},
        ),
        train_dataset=Dataset.from_list(train),
        eval_dataset=Dataset.from_list(test),
        processing_class=tokenizer,
    )
    adapters.unrounded(sft.model)
    before = evaluation.mean_token_loss(sft)
    trained = loop.fit(sft, settings, key, names, lambda: {"loss": evaluation.mean_token_loss(sft)})
    metrics = {
        "eval_loss_before": before,
        "eval_loss": evaluation.mean_token_loss(sft),
        "train_rows": len(train),
        "train_data": counts,
        "train_tokens_learnt": learnt,
        "eval_rows": len(test),
        "eval_data": test_counts,
        **trained,
    }
    print(f"held-out loss per token {before:.4f} -> {metrics['eval_loss']:.4f}")
    turns = [turn_of(row) for row in test]
    results.save(sft.model, settings, "train_sft", parents, turns)
    results.finish(settings, key, metrics)


if __name__ == "__main__":
    run(main)
