"""Convert an existing preference dataset to the form of a policy's pairs.

Data comes in the forms of prefline/data/forms.py. They are `chosen` and `rejected` as texts, messages or
whole dialogues, two outputs and a preference, answers and ratings, or completions with labels, which `kto`
takes. Dialogues may differ in the last answer only; the messages before it are the prompt. Text stays
unchanged. A row is dropped, and counted by the first reason that applies. Reasons are those of the data's
form, such as `blank`, and

    no_answer           a dialogue does not end with an answer
    no_prompt           there is nothing before the answers
    different_prompts   the dialogues differ before their last answers
    identical           chosen and rejected are the same text
    special_token, last_turn_not_user, contaminated   as in prepare_prompts
    duplicate           an equal pair came before
    not_taken           the weights of several sources leave no room for it, or more than --num-pairs were
                        left; a seeded hash of the pair decides

    reads   prompt (or none), chosen, rejected, chosen_reward and rejected_reward (or none); or other forms
    writes  a policy's preferences, with null where a dataset has no samples, ids or rewards

    python -m scripts.prompts.import_preferences --source pairs.parquet \\
        --columns '{"prompt": null, "chosen": "chosen", "rejected": "rejected", "chosen_reward": null,
        "rejected_reward": null}' --num-pairs null --system null --tokenizer results/models/sft \\
        --questions data/mt_bench/question.jsonl --test-fraction 0.15 --decontamination-ngram 8 --seed 1 \\
        --special-tokens drop --max-dropped 0.2 --unpaired false \\
        --out results/samples/sft/preferences.parquet --metrics results/samples/sft/preferences.json
"""

import array
import functools
import itertools
import json

from prefline import errors, files, seeds
from prefline.config import section
from prefline.data import prompts, reading, tables
from prefline.errors import InputError
from prefline.text import chat

ROWS_AT_ONCE = 1000


def clean(data, questions, n):
    """Yield the usable rows (dict, with "prompt_id") of `data` (reading.Data), without duplicates.

    questions and n: as in prompts.fault. The others are counted as dropped in `data`.
    """
    seen = set()
    for row in data:
        row["prompt_id"] = prompts.prompt_id(row["messages"])
        reason = prompts.fault(row["messages"], questions, n)
        number = seeds.derive(0, "pair", *content(row))
        if reason is None and number in seen:
            reason = "duplicate"
        if reason is not None:
            data.drop(row, reason, reason.replace("_", " "))
            continue
        seen.add(number)
        yield row


def content(row):
    """Return the name of a pair (tuple of str): its prompt and its answers."""
    return row["prompt_id"], *(str(row[side]) for side in ("chosen", "rejected"))


def take(places, draws, num_pairs):
    """Return `num_pairs` of `places` (sorted list of int), those with the lowest draws, in their order.

    draws: a random number for each place. Raises InputError if there are fewer places.
    """
    if num_pairs > len(places):
        raise InputError(
            f"{len(places)} pairs are fit for use, but prompts.preferences.num_pairs is {num_pairs}: lower "
            "it, or set it to null"
        )
    return sorted(sorted(places, key=lambda place: (draws[place], place))[:num_pairs])


def main(argv=None):
    parser = section.parser(__doc__)
    section.add(parser, "prompts.preferences", "source", "columns", "num_pairs")
    section.add(parser, "prompts", "system", "test_fraction", "decontamination_ngram")
    section.add(parser, "seed")
    section.add(parser, "data")
    parser.add_argument(
        "--unpaired", type=json.loads, required=True, help="true: completions with labels are taken, too"
    )
    parser.add_argument("--tokenizer", required=True, help="the start policy's directory")
    parser.add_argument("--questions", required=True, help="evaluation questions, in FastChat's form (jsonl)")
    parser.add_argument("--out", required=True, help="preference pairs (parquet)")
    parser.add_argument("--metrics", required=True, help="kept and dropped counts by reason (json)")
    args = parser.parse_args(argv)

    tokenizer = chat.load_tokenizer(args.tokenizer)
    special = functools.partial(chat.special_tokens_in, tokenizer)
    questions = prompts.question_ngrams(args.questions, args.decontamination_ngram)
    data = reading.Data(
        "pairs",
        args.source,
        args.columns,
        reading.policy(args),
        special,
        args.system,
        args.unpaired,
        write=functools.partial(chat.calls_as_text, tokenizer),
    )
    rows, kept = clean(data, questions, args.decontamination_ngram), reading.Kept(data)
    draws = array.array("q")
    with tables.Writer(args.out, tables.PREFERENCES) as pairs:
        while batch := list(itertools.islice(rows, ROWS_AT_ONCE)):
            for row in batch:
                row["split"] = prompts.split_of(row["prompt_id"], args.test_fraction, args.seed)
                kept.add(row, seeds.derive(args.seed, "mix", content(row)) if data.weighted else 0)
                if args.num_pairs is not None:
                    draws.append(seeds.derive(args.seed, "num_pairs", *content(row)))
            pairs.add(batch)
        if data.weighted:
            kept.mix()
        if args.num_pairs is not None:
            kept.leave(take(kept.places, draws, args.num_pairs))
        if data.weighted or args.num_pairs is not None:
            pairs.keep(kept.places)
        data.finish()
    splits = kept.splits()
    files.write_json(
        args.metrics, {**data.as_dict(), "kept": {"train": splits["train"], "test": splits["test"]}}
    )
    print(f"{splits['train']} pairs for training, {splits['test']} for testing")


if __name__ == "__main__":
    errors.run(main)
