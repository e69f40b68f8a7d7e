"""Every random draw of an experiment, derived from its one seed, a stable id and a purpose.

No draw depends on an order, a shard, a process or what was drawn before, so results do not either.
"""

import hashlib


def derive(seed, purpose, *ids):
    """Return a 63-bit integer that depends on all arguments and on nothing else.

    purpose: str, what the draw is for, such as "tie" or "completion"; ids: str or int.
    """
    text = "\x1f".join(str(part) for part in (seed, purpose, *ids))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def uniform(seed, purpose, *ids):
    """Return a float in [0, 1), derived as `derive` does."""
    return (derive(seed, purpose, *ids) >> 10) / 2**53


def for_libraries(seed, purpose):
    """Return an integer that `derive` gives, below 2³²: NumPy takes no other seed."""
    return derive(seed, purpose) % 2**32
