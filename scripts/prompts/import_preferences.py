"""Bring an existing preference dataset into the form of a policy's own pairs.

`chosen` and `rejected` are answers (strings, or lists of one assistant message) to the prompt of the row, or
whole dialogues (lists of messages). Of dialogues only the last answer may differ; what comes before is the
prompt. A row is dropped, and counted by the first reason that holds:
    blank               the prompt, an answer or one of their messages has no text
    no_answer           a dialogue does not end with an answer, or has nothing before it
    different_prompts   the dialogues differ before their last answers
    identical           chosen and rejected are the same text
    last_turn_not_user, special_token, contaminated   as in prepare_prompts
    duplicate           an equal pair came before
    not_taken           more than --num-pairs were left; a seeded hash of the pair says which

    reads   prompt (or none), chosen, rejected, chosen_reward and rejected_reward (or none)
    writes  a policy's preferences, with null where a dataset has no samples, ids or rewards

    python -m scripts.prompts.import_preferences --source pairs.parquet \\
        --columns '{"prompt": null, "chosen": "chosen", "rejected": "rejected", "chosen_reward": null,
        "rejected_reward": null}' --num-pairs null --system null --tokenizer results/models/sft \\
        --questions data/mt_bench/question.jsonl --test-fraction 0.15 --decontamination-ngram 8 --seed 1 \\
        --out results/samples/sft/preferences.parquet --metrics results/samples/sft/preferences.json
"""

import math
from collections import Counter

from prefline import errors, files, seeds
from prefline.config import section
from prefline.data import prompts, sources, tables
from prefline.errors import InputError
from prefline.text import chat

FIELDS = ("chosen", "rejected")


def pair(row, where, system):
    """(messages, chosen, rejected), normalized, of a dataset's row, or the reason (str) why it yields none.

    row: "chosen" and "rejected", each str or list of messages, and "prompt" where the data has one; `where`
    names the row in an InputError.
    """
    if any(prompts.is_blank(row[field]) for field in FIELDS):
        return "blank"
    answers, beginnings = [], []
    for field in FIELDS:
        dialogue = row[field]
        if isinstance(dialogue, list):
            dialogue = prompts.normalize(chat.as_messages(dialogue, f"{where}, {field}"))
        else:
            dialogue = [{"role": "assistant", "content": prompts.normal_text(_text(dialogue, where, field))}]
        if dialogue[-1]["role"] != "assistant":
            return "no_answer"
        answers.append(dialogue[-1]["content"])
        beginnings.append(dialogue[:-1])
    if beginnings[0] != beginnings[1]:
        return "different_prompts"
    beginning = beginnings[0]
    if not beginning:
        if "prompt" not in row:
            return "no_answer" if isinstance(row["chosen"], list) else _no_prompt(where)
        if prompts.is_blank(row["prompt"]):
            return "blank"
        beginning = row["prompt"]
    messages = prompts.normalize(chat.as_messages(beginning, where, system))
    if answers[0] == answers[1]:
        return "identical"
    return messages, *answers


def reward(value, where):
    """A reward as float, None where there is none; InputError if it is no finite number."""
    if value is None or value == "":
        return None
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        raise InputError(f"{where}: a reward is a finite number, not {value!r:.40}; mend or remove the row")
    return number


def import_rows(rows, system, special_tokens, questions, n):
    """Rows of `tables.PREFERENCES` without their splits, and the Counter of the dropped rows' reasons.

    rows: (where, row) as `sources.read_rows` yields them; the rest as in `prompts.fault`.
    """
    kept, dropped = {}, Counter()
    for where, row in rows:
        made = pair(row, where, system)
        if isinstance(made, str):
            dropped[made] += 1
            continue
        messages, chosen, rejected = made
        reason = prompts.fault(messages, special_tokens, questions, n)
        if any(token in answer for answer in (chosen, rejected) for token in special_tokens):
            reason = reason or "special_token"
        key = (prompts.prompt_id(messages), chosen, rejected)
        if reason is None and key in kept:
            reason = "duplicate"
        if reason is not None:
            dropped[reason] += 1
            continue
        kept[key] = {
            "prompt_id": key[0],
            "messages": messages,
            "chosen": chosen,
            "rejected": rejected,
            "chosen_reward": reward(row.get("chosen_reward"), where),
            "rejected_reward": reward(row.get("rejected_reward"), where),
        }
    return list(kept.values()), dropped


def take(rows, num_pairs, seed):
    """`num_pairs` of `rows`, in their order, by each pair's content; InputError if there are fewer."""
    if num_pairs > len(rows):
        raise InputError(
            f"{len(rows)} pairs are fit for use, but prompts.preferences.num_pairs is {num_pairs}: lower it, "
            "or set it to null"
        )
    contents = [(row["prompt_id"], row["chosen"], row["rejected"]) for row in rows]
    order = sorted(range(len(rows)), key=lambda place: seeds.derive(seed, "num_pairs", *contents[place]))
    return [rows[place] for place in sorted(order[:num_pairs])]


def _text(value, where, field):
    if not isinstance(value, str):
        raise InputError(f"{where}: {field} is a string or a list of messages, not {value!r:.60}")
    return value


def _no_prompt(where):
    raise InputError(
        f"{where}: the answers are without a prompt; name its column in prompts.preferences.columns"
    )


def main(argv=None):
    parser = section.parser(__doc__)
    section.add(parser, "prompts.preferences", "source", "columns", "num_pairs")
    section.add(parser, "prompts", "system", "test_fraction", "decontamination_ngram")
    section.add(parser, "seed")
    parser.add_argument("--tokenizer", required=True, help="the start policy's directory")
    parser.add_argument("--questions", required=True, help="evaluation questions, in FastChat's form (jsonl)")
    parser.add_argument("--out", required=True, help="preference pairs (parquet)")
    parser.add_argument("--metrics", required=True, help="kept and dropped counts by reason (json)")
    args = parser.parse_args(argv)

    for field in FIELDS:
        if args.columns.get(field) is None:
            raise InputError(f"prompts.preferences.columns: {field} needs a column")
    special_tokens = chat.special_tokens(chat.load_tokenizer(args.tokenizer)).values()
    questions = prompts.question_ngrams(args.questions, args.decontamination_ngram)
    rows, dropped = import_rows(
        sources.read_rows(args.source, args.columns),
        args.system,
        special_tokens,
        questions,
        args.decontamination_ngram,
    )
    read = len(rows) + dropped.total()
    if not rows:
        raise InputError(f"{args.source}: no pair is left; {prompts.counts_sentence(read, 0, dropped)}")
    if args.num_pairs is not None:
        usable = len(rows)
        rows = take(rows, args.num_pairs, args.seed)
        dropped["not_taken"] = usable - len(rows)
    for row in rows:
        row["split"] = prompts.split_of(row["prompt_id"], args.test_fraction, args.seed)
    splits = Counter(row["split"] for row in rows)
    tables.write(args.out, rows, tables.PREFERENCES)
    files.write_json(
        args.metrics,
        {
            "read": read,
            "kept": {"train": splits["train"], "test": splits["test"]},
            "dropped": dict(+dropped),
        },
    )
    print(f"{args.source}: {prompts.counts_sentence(read, len(rows), +dropped)}")
    print(f"{splits['train']} pairs for training, {splits['test']} for testing")


if __name__ == "__main__":
    errors.run(main)
