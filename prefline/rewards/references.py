"""Check that verifiers can use the references of data, before a policy answers."""

from pathlib import Path

from prefline.errors import InputError
from prefline.rewards import NoReward, verifiers

# Verifiers that say what they want of a reference when they get no answer. Code would be run.
CHECKED = ("math", "choice", "json_schema", "constraints")


def called_by(function):
    """Return the verifier that FILE.py:NAME (str) names; None for other functions."""
    path, _, name = function.rpartition(":")
    is_ours = Path(path).resolve() == Path(verifiers.__file__).resolve()
    return getattr(verifiers, name) if is_ours and name in CHECKED else None


def check(verify, arguments, row):
    """Raise InputError, naming the row, unless a verifier can use its reference.

    verify: function of `verifiers`; arguments: dict; row: dict with messages, reference and where.
    """
    try:
        verify(row["messages"], "", row["reference"], **arguments)
    except InputError as error:
        raise InputError(f"{row['where']}: {error}; correct the row, or remove it") from None
    except NoReward as error:
        raise InputError(
            f"{row['where']}: the verifier fails at the reference {row['reference']!r:.60} "
            f"({error.reason}); correct the row, or remove it"
        ) from None
