"""Put judgments of several policies into one file, as FastChat keeps them: its show_result reads it.

    python -m scripts.mt_bench.merge_judgments --judgments results/mt_bench/judgments/hosted/*.jsonl \\
        --out results/mt_bench/model_judgment/hosted_pair.jsonl
    python -m fastchat.llm_judge.show_result --mode pairwise-all \\
        --input-file results/mt_bench/model_judgment/hosted_pair.jsonl
"""

from pathlib import Path

from prefline import errors, files
from prefline.config import section


def main(argv=None):
    parser = section.parser(__doc__)
    parser.add_argument("--judgments", nargs="+", required=True, help="in FastChat's form (jsonl)")
    parser.add_argument("--out", required=True, help="all of them (jsonl)")
    args = parser.parse_args(argv)

    files.write_text(args.out, "".join(Path(path).read_text(encoding="utf-8") for path in args.judgments))


if __name__ == "__main__":
    errors.run(main)
