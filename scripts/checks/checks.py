"""Print what all checks found, as a table, and write it to a file.

    python -m scripts.checks.checks --passed results/checks/data/*.json \\
        --skipped '{"endpoints/rewards.own": "its jobs serve it"}' --out results/checks/table.txt
"""

import json

from prefline import errors, files
from prefline.config import section
from prefline.machine import checks


def main(argv=None):
    parser = section.parser(__doc__)
    parser.add_argument("--passed", nargs="+", required=True, help="what each check found (json)")
    parser.add_argument("--skipped", type=json.loads, required=True, help="checks not made, {name: reason}")
    parser.add_argument("--out", required=True, help="the table to write (text)")
    args = parser.parse_args(argv)

    found = checks.table([*map(checks.passed, args.passed), *checks.left_out(args.skipped)])
    files.write_text(args.out, found)
    print(found, end="")


if __name__ == "__main__":
    errors.run(main)
