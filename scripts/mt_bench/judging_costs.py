"""Say how many calls the judges in the config would be, and what they may cost, without making one.

For each judge that is asked on servers, and each match, the same as `scripts.mt_bench.ask_judge --dry-run`;
then the sum. Judges are JSON, {name: {"endpoint": {…}, "max_tokens": …}}; matches are JSON, lists of one
or two policies.

    python -m scripts.mt_bench.judging_costs --questions data/mt_bench/question.jsonl --references … \\
        --judge-prompts … --answers results/mt_bench/answers --judges '{"hosted": {…}}' \\
        --matches '{"hosted": [["dpo-1", "sft"], ["sft"]]}' --seed 1 --journal work/journal
"""

import argparse
import json
from pathlib import Path

from prefline import errors
from prefline.config import section
from prefline.servers.endpoint import Endpoint
from scripts.mt_bench import ask_judge


def main(argv=None):
    parser = section.parser(__doc__)
    parser.add_argument("--questions", required=True, help="as of ask_judge")
    parser.add_argument("--references", required=True, help="as of ask_judge")
    parser.add_argument("--judge-prompts", required=True, help="as of ask_judge")
    parser.add_argument("--answers", required=True, help="folder of all policies' answers")
    parser.add_argument("--judges", type=json.loads, required=True, help="their sections (JSON)")
    parser.add_argument("--matches", type=json.loads, required=True, help="by judge (JSON)")
    section.add(parser, "seed")
    parser.add_argument("--journal", required=True, help="folder of finished rows")
    args = parser.parse_args(argv)

    if not args.judges:
        print("no judge in mt_bench.judge is asked on a server: there is nothing to pay for")
    for name, judge in args.judges.items():
        calls, cost = 0, 0.0
        for policies in args.matches[name]:
            answers = [str(Path(args.answers) / f"{policy}.jsonl") for policy in policies]
            asked = {"judge": name, "models": policies, "answers": answers, "model": ""}
            asked |= {"endpoint": Endpoint(**judge["endpoint"]), "max_tokens": judge["max_tokens"]}
            number, price = ask_judge.say_costs(argparse.Namespace(**vars(args) | asked))
            calls, cost = calls + number, cost + price
        print(f"judge {name}: {calls} calls in all, about {cost:.2f} by the config's prices")


if __name__ == "__main__":
    errors.run(main)
