"""Tournaments of completions: who meets whom, and what the comparisons make of them."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prefline import seeds
from prefline.rewards import tournament

some_texts = st.lists(st.text(max_size=4), min_size=1, max_size=9)


def chances(texts, opponents=0, seed=1):
    """Probabilities of the comparisons of a tournament, which any function of the two texts will do for."""
    held = tournament.comparisons(sorted(set(texts)), opponents, seed, "p0")
    return {pair: seeds.uniform(seed, "chance", *pair) for pair in held}


@given(texts=some_texts)
def test_the_rewards_of_a_full_tournament_are_win_probabilities(texts):
    scored = tournament.score(texts, chances(texts))
    for number, (reward, parts) in enumerate(scored):
        assert 0 <= reward <= 1
        assert reward == pytest.approx(np.mean(parts))
        assert parts[number] == 0.5
        for other, (_, theirs) in enumerate(scored):
            assert parts[other] + theirs[number] == pytest.approx(1)
    assert np.mean([reward for reward, _ in scored]) == pytest.approx(0.5)


@given(texts=some_texts, data=st.data(), opponents=st.integers(0, 4))
def test_the_order_of_the_samples_does_not_count(texts, data, opponents):
    shuffled = data.draw(st.permutations(texts))
    of_text = {}
    for text, (reward, _) in zip(texts, tournament.score(texts, chances(texts, opponents)), strict=True):
        assert of_text.setdefault(text, reward) == reward, "equal texts, equal rewards"
    again = tournament.score(shuffled, chances(shuffled, opponents))
    assert [reward for reward, _ in again] == [of_text[text] for text in shuffled]


@given(texts=st.sets(st.text(max_size=3), min_size=1, max_size=14), opponents=st.integers(1, 14))
@settings(max_examples=200)
def test_a_sampled_tournament_is_balanced_and_in_one_piece(texts, opponents):
    held = tournament.comparisons(list(texts), opponents, 1, "p0")
    assert len(set(held)) == len(held)
    assert all(a < b for a, b in held)
    if opponents >= len(texts) - 1:
        assert held == tournament.comparisons(list(texts), 0, 1, "p0")
    beside = {text: {a if b == text else b for a, b in held if text in (a, b)} for text in texts}
    degrees = {len(others) for others in beside.values()}
    assert len(degrees) == 1
    wanted = min(max(opponents, 2), len(texts) - 1)
    assert degrees.pop() == wanted + (wanted % 2 and len(texts) % 2)
    reached = {min(texts)}
    for _ in texts:
        reached |= set().union(*(beside[text] for text in reached))
    assert reached == texts


def test_who_meets_whom_follows_the_seed_and_the_prompt():
    texts = [f"text {number}" for number in range(12)]
    designs = {
        tuple(tournament.comparisons(texts, 4, seed, prompt)) for seed in range(5) for prompt in ("p", "q")
    }
    assert len(designs) == 10
    assert tournament.comparisons(texts[::-1], 4, 1, "p") == tournament.comparisons(texts, 4, 1, "p")


def test_what_was_not_met_counts_as_the_mean_of_what_was():
    held = {("a", "b"): 1.0, ("b", "c"): 1.0, ("c", "d"): 0.75, ("a", "d"): 0.5}
    scored = tournament.score(["c", "a", None, "d", "b", "a"], held)
    assert scored[0][1] == [0.5, None, None, 0.75, 0.0, None]
    assert scored[0][0] == pytest.approx((0.5 + 0.75 + 0.0 + 2 * 0.375) / 5)
    assert scored[1][1] == [None, 0.5, None, 0.5, 1.0, 0.5]
    assert scored[1][0] == pytest.approx((0.5 + 0.5 + 0.5 + 1.0 + 0.75) / 5)
    assert scored[2] is None
    assert tournament.score([None, "a", "a"], {}) == [None, [0.5, [None, 0.5, 0.5]], [0.5, [None, 0.5, 0.5]]]
