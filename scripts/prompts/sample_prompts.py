"""Take the prompts of one shard from the pool.

A shard is a range of ranks in the order of its split, which prepare_prompts writes the pool in. So a shard
depends on no other one, iterations have different training prompts, asking for more prompts leaves the full
shards unchanged, and only the shard's rows are read.

    reads   prompt_id, messages, prompt_ids, reference, split
    writes  prompt_id, messages, prompt_ids, reference

    python -m scripts.prompts.sample_prompts --pool results/prompts/pool.parquet --split train --first 0 \\
        --number 400 --out results/samples/sft/prompts/train-00000.parquet
"""

from prefline import errors
from prefline.config import section
from prefline.data import tables
from prefline.errors import InputError


def select(path, split, first, number):
    """Return the prompts (Table) with the ranks first … first + number - 1 of a split of the pool `path`."""
    with tables.opened(path, tables.POOL) as file:
        splits = tables.metadata(file.schema_arrow)
    if splits is None:
        raise InputError(
            f"{path}: does not say how many prompts of each split it has; delete the file and let "
            "prepare_prompts make it again"
        )
    if first + number > splits[split]:
        raise InputError(
            f"the pool has {splits[split]} {split} prompts, but {first + number} are needed (all iterations "
            "together): lower prompts.num_prompts or num_test_prompts or a run's iterations, change "
            "prompts.test_fraction, or bring more prompts"
        )
    start = splits["train"] if split == "test" else 0
    return tables.read_slice(path, tables.POOL, start + first, number).select(tables.PROMPTS.names)


def main(argv=None):
    parser = section.parser(__doc__)
    parser.add_argument("--pool", required=True, help="the pool of prompts (parquet)")
    parser.add_argument("--split", choices=["train", "test"], required=True)
    parser.add_argument("--first", type=int, required=True, help="rank of the shard's first prompt, from 0")
    parser.add_argument("--number", type=int, required=True, help="prompts in the shard")
    parser.add_argument("--out", required=True, help="prompts (parquet)")
    args = parser.parse_args(argv)

    tables.write(args.out, select(args.pool, args.split, args.first, args.number), tables.PROMPTS)
    print(f"{args.number} {args.split} prompts, from rank {args.first}")


if __name__ == "__main__":
    errors.run(main)
