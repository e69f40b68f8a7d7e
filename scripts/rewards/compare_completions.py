"""Reward the completions of a shard by a tournament: how likely each is to beat another one to its prompt.

A pairwise model compares texts that differ; equal ones, and each with itself, count 1/2. The tournament of a
prompt is full, or sampled: see prefline/rewards/tournament.py. The reward is the mean, `parts` are the
probabilities of beating each sample, in the order of the samples, null where two did not meet. A comparison
that the journal has, with its two answers in either order, is not made again, and without a missing one no
model is loaded.

    python -m scripts.rewards.compare_completions --prompts results/samples/sft/prompts/train-00000.parquet \\
        --completions results/samples/sft/completions/train-00000.parquet \\
        --model results/models/pair_rm --opponents 0 --seed 1 --batch-tokens 16384 --dtype float32 \\
        --journal work/journal --out results/samples/sft/rewards/pair_rm/train-00000.parquet
"""

import time

from prefline import errors, rewards
from prefline.config import section
from prefline.provenance import journal
from prefline.rewards import pairwise, shard, tournament


def load(model, batch_tokens, dtype):
    """The `pairwise.Comparer` of the model directory `model`, on the accelerator if there is one.

    batch_tokens: int, most tokens in one forward pass, padding included. dtype: "float32" or "bfloat16", of
    the model's body; heads and probabilities are float32 in both. Raises InputError for a model that compares
    no answers.
    """
    if pairwise.form(model) == "PairRM":
        from prefline.rewards.pairrm import PairRM as Comparer
    else:
        from prefline.rewards.pair_preference import PairPreference as Comparer
    return Comparer(model, batch_tokens, dtype)


def by_prompt(rows):
    """{prompt_id: numbers (list of int) of its rows, in the order of the samples}."""
    found = {}
    for number in sorted(range(len(rows)), key=lambda number: rows[number]["sample"]):
        found.setdefault(rows[number]["prompt_id"], []).append(number)
    return found


def comparisons_of(dialogues, samples, opponents, seed, prompt_id):
    """{(a, b): Comparison} of one prompt's dialogues (list of `Dialogue`, None where there is no answer).

    samples: list of int, their numbers, for messages to the user; the rest: see tournament.comparisons.
    """
    first = {}
    for dialogue, sample in zip(dialogues, samples, strict=True):
        if dialogue is not None:
            first.setdefault(dialogue.completion, (dialogue, sample))
    return {
        (a, b): pairwise.Comparison(
            first[a][0].messages, a, b, f"{first[a][0].where}, beside sample {first[b][1]}"
        )
        for a, b in tournament.comparisons(first, opponents, seed, prompt_id)
    }


def main(argv=None):
    parser = section.parser(__doc__)
    shard.add_arguments(parser)
    shard.add_model_arguments(parser)
    parser.add_argument(
        "--opponents", type=int, required=True, help="others that each completion is compared with; 0: all"
    )
    parser.add_argument("--seed", type=int, required=True, help="of who meets whom in a sampled tournament")
    args = parser.parse_args(argv)

    rows, dialogues = shard.read(args)
    prompts, wanted, names = by_prompt(rows), {}, {}
    for prompt_id, numbers in prompts.items():
        samples = [rows[number]["sample"] for number in numbers]
        answers = [dialogues[number] for number in numbers]
        held = comparisons_of(answers, samples, args.opponents, args.seed, prompt_id)
        names[prompt_id] = {
            pair: journal.key(comparison.messages, *pair) for pair, comparison in held.items()
        }
        wanted |= {names[prompt_id][pair]: comparison for pair, comparison in held.items()}

    def make(missing):
        model = load(args.model, args.batch_tokens, args.dtype)
        keys, started = list(missing), time.perf_counter()
        for numbers, probabilities in model.batches(list(missing.values())):
            yield {keys[number]: value for number, value in zip(numbers, probabilities, strict=True)}
        seconds = time.perf_counter() - started
        print(f"{len(keys)} compared in {seconds:.1f} s, {len(keys) / max(seconds, 1e-9):.1f} per second")

    shaped_by = journal.context(
        "scripts/rewards/compare_completions.py", args.model, rewards.PACKAGES, dtype=args.dtype
    )
    made = journal.Journal(args.journal, "comparisons", shaped_by, args.model).rows(wanted, make)
    scored = [None] * len(rows)
    for prompt_id, numbers in prompts.items():
        texts = [dialogues[number] and dialogues[number].completion for number in numbers]
        probabilities = {pair: made[name] for pair, name in names[prompt_id].items()}
        for number, pair in zip(numbers, tournament.score(texts, probabilities), strict=True):
            scored[number] = pair
    shard.write(args.out, rows, scored)


if __name__ == "__main__":
    errors.run(main)
