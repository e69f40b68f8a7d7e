"""Check that a verifier can use the references of data, before a policy answers."""

from prefline.errors import InputError
from prefline.rewards import NoReward


def check(verify, arguments, row):
    """Raise InputError, naming the row, unless a verifier can use its reference.

    verify: function of `verifiers`, which judges no answer here; arguments: dict; row: dict with messages,
    reference and where.
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
