"""Fetch a file from its public source, and refuse any other: the address comes with the file's sha256.

MT-Bench's questions, reference answers and judge prompts are FastChat's, and not in this repository. A pinned
commit's address gives the same bytes for ever; if it does not, nothing is written.

Reference answers by GPT-4 have errors. A file of corrections replaces whole turns; each names the text that
it replaces by its sha256, so that none meets a text that it was not written for.

    python -m scripts.mt_bench.fetch_mt_bench \\
        --source https://raw.githubusercontent.com/…/question.jsonl#sha256=HEX \\
        --corrections --out results/mt_bench/data/questions.jsonl
"""

import hashlib
import json
import time
import urllib.error
import urllib.request

from prefline import errors, files
from prefline.config import section
from prefline.data.sources import parse_url
from prefline.errors import InputError
from prefline.judging import fastchat

TRIES, FIRST_WAIT, TIMEOUT = 4, 2.0, 60.0


def fetch(address, first_wait=FIRST_WAIT):
    """Return the bytes at an address; InputError, after some tries, if they cannot be had.

    first_wait: seconds before the second try; each wait is twice the one before.
    """
    for number in range(TRIES):
        try:
            with urllib.request.urlopen(address, timeout=TIMEOUT) as response:
                return response.read()
        except (OSError, ValueError) as error:
            if number + 1 == TRIES or getattr(error, "code", 500) in (401, 403, 404, 410):
                raise InputError(
                    f"{address}: cannot be fetched ({error}); where there is no network, get the file "
                    "elsewhere and name its path in the config's section mt_bench"
                ) from None
            time.sleep(first_wait * 2**number)


def corrected(rows, corrections):
    """Return reference answers (rows of FastChat's form), corrected.

    corrections: as fastchat.read_corrections gives them. Raises InputError for one of another text.
    """
    turns = {row["question_id"]: row["choices"][0]["turns"] for row in rows}
    for where, one in corrections:
        published, turn = turns.get(one["question_id"], []), one["turn"]
        found = published[turn - 1] if turn in range(1, len(published) + 1) else ""
        if hashlib.sha256(found.encode()).hexdigest() != one["replaces"]:
            raise InputError(
                f"{where}: corrects another text than the references have for question {one['question_id']}, "
                f"turn {turn}; remove the line, or set mt_bench.corrections to null"
            )
        if not isinstance(one["reference"], str):
            raise InputError(f"{where}: `reference` is the right answer, a string")
        published[turn - 1] = one["reference"]
    return rows


def main(argv=None):
    parser = section.parser(__doc__)
    parser.add_argument("--source", required=True, help="ADDRESS#sha256=HEX")
    parser.add_argument("--corrections", nargs="*", required=True, help="files of corrections (jsonl)")
    parser.add_argument("--out", required=True, help="the file")
    args = parser.parse_args(argv)

    address, wanted = parse_url(args.source)
    content = fetch(address)
    found = hashlib.sha256(content).hexdigest()
    if found != wanted:
        raise InputError(
            f"{address}: the file has the sha256 {found}, not {wanted}, so it has changed; pin its commit, "
            "and read it before you put its sha256 into the config"
        )
    for path in args.corrections:
        corrections = fastchat.read_corrections(path)
        rows = corrected([json.loads(line) for line in content.splitlines()], corrections)
        content = "".join(f"{json.dumps(row, ensure_ascii=False)}\n" for row in rows).encode()
        print(f"{path}: {len(corrections)} references corrected")
    with files.atomic(args.out) as temporary, open(temporary, "wb") as file:
        file.write(content)
    print(f"{address}: {len(content)} bytes, sha256 as wanted")


if __name__ == "__main__":
    errors.run(main)
