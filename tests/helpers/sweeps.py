"""Sweeps over many cases of one code path: a few are fast tests, all others slow ones."""

import pytest


def sweep(cases, fast):
    """Return `cases` (list of tuples) as parameters; those are slow of which fast(*case) is false."""
    marked = [case if fast(*case) else pytest.param(*case, marks=pytest.mark.slow) for case in cases]
    assert any(map(lambda case: fast(*case), cases)), "no case is left among the fast tests"
    return marked


def first_of(key):
    """Return a function for `fast`: whether a case is the first with the value key(*case)."""
    seen = {}
    return lambda *case: seen.setdefault(key(*case), case) == case
