"""Take the prompts of one shard from the pool.

The prompts of a split stand in an order of their own, by a seeded hash; a shard is a range of ranks in it.
So a shard depends on no other one, iterations have different training prompts, and asking for more prompts
leaves the full shards as they are.

    reads   prompt_id, messages, prompt_ids, reference, split
    writes  prompt_id, messages, prompt_ids, reference

    python -m scripts.prompts.sample_prompts --pool results/prompts/pool.parquet --split train --first 0 \\
        --number 400 --seed 1 --out results/samples/sft/prompts/train-00000.parquet
"""

from prefline import errors
from prefline.config import section
from prefline.data import prompts, tables
from prefline.errors import InputError


def select(pool, split, first, number, seed):
    """The rows (pyarrow Table) of `pool` with the ranks first … first + number - 1 of a split, in order."""
    ids, splits = pool["prompt_id"].to_pylist(), pool["split"].to_pylist()
    places = {prompt_id: place for place, prompt_id in enumerate(ids) if splits[place] == split}
    if first + number > len(places):
        raise InputError(
            f"the pool has {len(places)} {split} prompts, but {first + number} are needed (all iterations "
            "together): lower prompts.num_prompts or num_test_prompts or a run's iterations, change "
            "prompts.test_fraction, or bring more prompts"
        )
    order = prompts.in_order(places, seed)[first : first + number]
    return pool.take([places[prompt_id] for prompt_id in order]).select(tables.PROMPTS.names)


def main(argv=None):
    parser = section.parser(__doc__)
    parser.add_argument("--pool", required=True, help="the pool of prompts (parquet)")
    parser.add_argument("--split", choices=["train", "test"], required=True)
    parser.add_argument("--first", type=int, required=True, help="rank of the shard's first prompt, from 0")
    parser.add_argument("--number", type=int, required=True, help="prompts in the shard")
    section.add(parser, "seed")
    parser.add_argument("--out", required=True, help="prompts (parquet)")
    args = parser.parse_args(argv)

    pool = tables.read(args.pool, tables.POOL)
    chosen = select(pool, args.split, args.first, args.number, args.seed)
    tables.write(args.out, chosen, tables.PROMPTS)
    print(f"{args.number} {args.split} prompts, from rank {args.first}")


if __name__ == "__main__":
    errors.run(main)
