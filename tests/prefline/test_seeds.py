"""Draws that depend on the seed, the purpose and the ids, and on nothing else."""

import subprocess
import sys

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from prefline import seeds

IDS = st.lists(st.one_of(st.integers(0, 2**70), st.text("abc0123456789", max_size=5)), max_size=4)


def test_a_draw_is_the_same_in_every_version_of_the_project():
    assert seeds.derive(1, "tie", "prompt", 0) == 6522563566575222337


def test_a_draw_is_the_same_in_another_process():
    code = "from prefline import seeds; print(seeds.derive(7, 'completion', 'abc', 3))"
    for hash_seed in ("0", "1"):
        output = subprocess.check_output(
            [sys.executable, "-c", code], env={"PYTHONHASHSEED": hash_seed}, text=True
        )
        assert int(output) == seeds.derive(7, "completion", "abc", 3)


@given(st.integers(0, 2**64), st.text(max_size=5), IDS)
def test_a_draw_is_in_its_range(seed, purpose, ids):
    assert 0 <= seeds.derive(seed, purpose, *ids) < 2**63
    assert 0 <= seeds.uniform(seed, purpose, *ids) < 1


def test_the_largest_draw_is_below_one(monkeypatch):
    monkeypatch.setattr(seeds, "derive", lambda *arguments: 2**63 - 1)
    assert 0.999 < seeds.uniform(1, "split", "a") < 1


@given(*[st.tuples(st.integers(0, 99), st.sampled_from(["tie", "split"]), IDS)] * 2)
def test_draws_differ_where_anything_differs(one, other):
    """Ids are told apart one by one: ("ab", "c") is not ("a", "bc")."""

    def spelled(draw):
        return draw[0], draw[1], [str(part) for part in draw[2]]

    same = spelled(one) == spelled(other)
    assert same == (seeds.derive(one[0], one[1], *one[2]) == seeds.derive(other[0], other[1], *other[2]))


def test_draws_are_even():
    draws = np.array([seeds.uniform(1, "split", number) for number in range(20_000)])
    counts, _ = np.histogram(draws, bins=20, range=(0, 1))
    assert counts.min() > 850 and counts.max() < 1150
    assert abs(np.corrcoef(draws[:-1], draws[1:])[0, 1]) < 0.03
