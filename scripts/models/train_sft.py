"""Fine-tune a model on chat dialogues, learning from the assistant's tokens only.

Every turn of the assistant is learnt, its end-of-turn token included. Which tokens those are follows from the
prefix property (prefline/text/chat.py), so that templates need no `{% generation %}` marks. A row of plain
text is learnt whole. Rows longer than --max-length, and dialogues without an assistant, are dropped and
counted, never truncated.

    reads   messages: list of {"role", "content"}, or text: str
    writes  a model directory; metrics.json with the held-out loss per token before and after

    python -m scripts.models.train_sft --model results/models/base --train-data train.jsonl \
        --eval-data test.jsonl \
        --columns '{"messages": "messages"}' --max-length 256 --learning-rate 1e-3 ... --out DIR
"""

from prefline.config import section
from prefline.data import sources
from prefline.errors import InputError, run
from prefline.text import chat
from prefline.training import adapters, arguments, evaluation, process, results, weights
from prefline.training.settings import Settings

IGNORED = -100


def example(tokenizer, messages):
    """{"input_ids", "labels"} (lists of int of one length) of a dialogue; None if no assistant speaks in it.

    Labels are the ids where the assistant speaks and IGNORED elsewhere. What follows the assistant's last
    turn is left out. Raises InputError if an earlier turn is not rendered alike in the longer dialogue.
    """
    turns = [
        chat.prompt_and_completion_ids(tokenizer, messages[:number], message["content"])
        for number, message in enumerate(messages)
        if message["role"] == "assistant"
    ]
    if not turns:
        return None
    prompt, completion = turns[-1]
    ids = prompt + completion
    labels = [IGNORED] * len(ids)
    for prompt, completion in turns:
        begin, end = len(prompt), len(prompt) + len(completion)
        if ids[:end] != prompt + completion:
            raise InputError(
                "the chat template breaks the prefix property: an earlier answer is rendered otherwise once "
                "the dialogue goes on; the template must render every turn alike"
            )
        labels[begin:end] = completion
    return {"input_ids": ids, "labels": labels}


def turn_of(row):
    """(prompt ids, completion ids): where the assistant first speaks in an `example`, and all from there."""
    begin = next(place for place, label in enumerate(row["labels"]) if label != IGNORED)
    return row["input_ids"][:begin], row["input_ids"][begin:]


def text_example(tokenizer, text):
    """`example` of a plain text, which is all the assistant's."""
    (ids,) = chat.document_ids(tokenizer, [text])
    labels = [IGNORED if ids[0] == tokenizer.bos_token_id else ids[0], *ids[1:]]
    return {"input_ids": ids, "labels": labels}


def row_example(tokenizer, row, where):
    """`example` of a row of the data; InputError, naming `where`, for one that cannot be learnt."""
    if "text" in row:
        (message,) = chat.as_messages([{"role": "assistant", "content": row["text"]}], where)
        return text_example(tokenizer, message["content"])
    messages = chat.as_messages(row["messages"], where)
    if messages[0]["role"] == "assistant":
        raise InputError(f"{where}: the dialogue begins with the assistant; a user must speak first")
    try:
        return example(tokenizer, messages)
    except InputError as error:
        raise InputError(f"{where}: {error}") from None


def read(source, columns, tokenizer, max_length):
    """(examples, names, dropped): the rows to learn from, where each stands, and counts by reason (dict)."""
    examples, names, dropped = [], [], {"no_assistant": 0, "too_long": 0}
    for where, row in sources.read_rows(source, columns):
        made = row_example(tokenizer, row, where)
        if made is None:
            dropped["no_assistant"] += 1
        elif len(made["input_ids"]) > max_length:
            dropped["too_long"] += 1
        else:
            examples.append(made)
            names.append(where)
    if not examples:
        raise InputError(f"{source}: no row is left to learn from; dropped: {dropped}")
    return examples, names, dropped


def main(argv=None):
    parser = section.parser(__doc__)
    section.add(parser, "models.sft", "train_data", "eval_data", "columns", "max_length")
    Settings.add_flags(parser)
    args = parser.parse_args(argv)

    if (args.columns.get("messages") is None) == (args.columns.get("text") is None):
        raise InputError(
            "models.sft.columns: either `messages` or `text` names a column, and the other is null"
        )
    # A branch that has moved is other data, which no checkpoint of before belongs to.
    args.train_data, args.eval_data = map(sources.pinned, (args.train_data, args.eval_data))
    inputs = sources.local_files(args.train_data, args.eval_data)
    settings = Settings.of(vars(args))
    key = results.work_key(settings, "scripts/models/train_sft.py", [args.model, *inputs])
    parents = results.parents(settings, inputs)
    if results.restore(settings, key, "train_sft", parents):
        return
    tokenizer = chat.load_tokenizer(args.model)
    train, names, dropped = read(args.train_data, args.columns, tokenizer, args.max_length)
    test, _, test_dropped = read(args.eval_data, args.columns, tokenizer, args.max_length)
    learnt = sum(label != IGNORED for row in train for label in row["labels"])
    print(f"{len(train)} dialogues with {learnt} tokens to learn, dropped {dropped}; {len(test)} held out")

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
    sft = SFT(
        model=weights.load(settings, AutoModelForCausalLM),
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
        "train_rows_dropped": dropped,
        "train_tokens_learnt": learnt,
        "eval_rows": len(test),
        "eval_rows_dropped": test_dropped,
        **trained,
    }
    print(f"held-out loss per token {before:.4f} -> {metrics['eval_loss']:.4f}")
    turns = [turn_of(row) for row in test]
    results.save(sft.model, settings, "train_sft", parents, turns)
    results.finish(settings, key, metrics)


if __name__ == "__main__":
    run(main)
