"""Rewards that can be verified: functions for rewards of the kind `function`, as in functions.py.

Each takes the right answer from the prompt's reference, and raises InputError for a row without one.
`seconds` is the time for an answer. An answer that takes longer, or at which a verifier crashes, has the
reward `failed`, or none if that is null (None); both are counted.
"""

import json
import re
import tempfile
from pathlib import Path

from prefline.errors import InputError
from prefline.machine import sandbox
from prefline.rewards import NoReward, code_tests, isolated

CODE = re.compile(r"```(?:python|py)?[ \t]*\n(.*?)(?:```|\Z)", re.DOTALL | re.IGNORECASE)
# Limits of the sandbox beyond those of the tests: megabytes of files, of memory, and seconds to start.
SCRATCH_MEGABYTES, OWN_MEGABYTES, OWN_SECONDS = 64, 100, 30


def math(messages, completion, reference: str, seconds=10.0, failed=None):
    """Return 1.0 if the final answer equals the reference, by math-verify."""
    return _verified("math", completion, {"reference": _needed(reference)}, seconds, failed)


def choice(messages, completion, reference: str, choices="ABCD", seconds=10.0, failed=None):
    """Return 1.0 if the answer chooses the reference's letter."""
    arguments = {"reference": _needed(reference), "choices": choices}
    return _verified("choice", completion, arguments, seconds, failed)


def json_schema(messages, completion, reference, schema=None, seconds=10.0, failed=None):
    """Return 1.0 if the answer is JSON that has the schema: this one, or else the reference."""
    arguments = {"schema": schema, "reference": _needed(reference) if schema is None else None}
    return _verified("json_schema", completion, arguments, seconds, failed)


def format(messages, completion, reference, opening="<answer>", closing="</answer>"):
    """Return 1.0 if the answer ends with one text between these markers."""
    return _verified("format", completion, {"opening": opening, "closing": closing}, 10.0, None)


def constraints(messages, completion, reference, constraints=None, partial=False, seconds=10.0, failed=None):
    """Return 1.0 if the answer meets all constraints, these or the reference's; partial: the share met."""
    arguments = {"constraints": constraints, "partial": partial}
    arguments["reference"] = _needed(reference) if constraints is None else None
    return _verified("constraints", completion, arguments, seconds, failed)


def code(messages, completion, reference: str, seconds=10.0, megabytes=1_000, partial=False, failed=0.0):
    """Return 1.0 if the Python code in the answer passes all tests of the reference; partial: the share.

    The reference is Python code with assertions, or a JSON list of {"input": text, "output": text} for
    programs that read and write. The code is the last fenced block, or the whole answer. seconds, megabytes:
    of each test. A test that takes longer or ends its process gives `failed`, 0.0 unless the config has
    another.
    """
    tests, blocks = _tests(_needed(reference)), CODE.findall(completion)
    task = {"code": blocks[-1] if blocks else completion, "tests": tests}
    found = _in_sandbox(task | {"seconds": seconds, "megabytes": megabytes})
    ended = [outcome for outcome in found if outcome not in ("passed", "failed")]
    passed = found.count("passed") / len(found)
    if ended:
        raise NoReward(ended[0], passed if partial and failed is not None else failed)
    return passed if partial else float(passed == 1)


def _tests(reference):
    """Return the tests (list) of a reference; raise InputError if there are none."""
    try:
        tests = json.loads(reference)
    except ValueError:
        try:
            compile(reference, "the reference", "exec")
        except (SyntaxError, ValueError) as error:
            raise InputError(f"the reference {reference!r:.60} is no Python code: {error}") from None
        if "assert" not in reference:
            raise InputError(f"the reference {reference!r:.60} has no assert") from None
        return [reference]
    pairs = isinstance(tests, list) and all(
        isinstance(test, dict) and {"input", "output"} <= test.keys() for test in tests
    )
    if not pairs or not tests:
        raise InputError(f"the reference {reference!r:.60} is no list of input and output, nor Python code")
    return tests


def _in_sandbox(task):
    """Return the outcome of each test (list of str): passed, failed, timeout or crash."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "task.json")
        path.write_text(json.dumps(task), encoding="utf-8")
        try:
            said = sandbox.run(
                code_tests.__file__,
                {"task.json": path},
                {},
                megabytes=SCRATCH_MEGABYTES,
                memory_mb=int(task["megabytes"]) + SCRATCH_MEGABYTES + OWN_MEGABYTES,
                seconds=OWN_SECONDS + task["seconds"] * len(task["tests"]),
            )
            return json.loads(said)
        except (sandbox.Ended, ValueError):
            return ["crash"]


def _verified(name, completion, arguments, seconds, failed):
    try:
        return isolated.call(name, completion, arguments, seconds)
    except NoReward as error:
        raise NoReward(error.reason, failed) from None


def _needed(reference):
    if reference is None or not reference.strip():
        raise InputError("the prompt has no reference answer; name its column in prompts.columns.reference")
    return reference
