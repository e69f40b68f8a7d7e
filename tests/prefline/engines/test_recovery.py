"""Going on around requests on which an engine dies."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prefline.engines import Completion, Request
from prefline.engines.recovery import HOPELESS, Crash, stream

BATCH = 4


class Engine:
    """Dies on the batch that holds one of `poison`, after having answered `before` of it."""

    def __init__(self, poison, before):
        self.poison, self.before, self.starts = poison, before, 0

    def run(self, part):
        self.starts += 1
        for start in range(0, len(part), BATCH):
            batch = part[start : start + BATCH]
            dies = any(index in self.poison for index, _ in batch)
            healthy = [pair for pair in batch if pair[0] not in self.poison]
            for index, request in healthy[: self.before if dies else None]:
                yield index, Completion([request.seed], "stop")
            if dies:
                raise Crash("out of memory")


def requests(number):
    return [Request([1], seed, f"prompt {seed}") for seed in range(number)]


@given(st.integers(0, 30), st.sets(st.integers(0, 29), max_size=6), st.integers(0, 3))
def test_all_but_the_poison_are_answered_once(number, poison, before):
    poison = {index for index in poison if index < number and not {index - 1, index - 2} & poison}
    made = list(stream(Engine(poison, before).run, requests(number), BATCH))
    assert sorted(index for index, _ in made) == list(range(number))
    for index, completion in made:
        assert completion == (Completion([], "error") if index in poison else Completion([index], "stop"))


def test_what_is_given_up_is_named(capsys):
    list(stream(Engine({5}, 1).run, requests(9), BATCH))
    said = capsys.readouterr().out
    assert "the engine died (out of memory) on one of 4 requests: prompt 5, prompt 6, prompt 7 …" in said
    assert "prompt 5 is given up" in said
    assert said.count("is given up") == 1


def test_a_death_without_a_culprit_loses_nothing():
    engine, calls = Engine(set(), 0), []

    def run(part):
        calls.append(len(part))
        if len(calls) == 1:
            raise Crash("killed")
        yield from engine.run(part)

    made = list(stream(run, requests(10), BATCH))
    assert sorted(index for index, _ in made) == list(range(10))
    assert all(completion.finish_reason == "stop" for _, completion in made)
    assert calls == [10, 2, 2, 6]


def test_an_engine_that_always_dies_is_an_error():
    engine = Engine(set(range(50)), 0)
    with pytest.raises(RuntimeError, match=f"died on {HOPELESS} requests in a row, the last prompt 2"):
        list(stream(engine.run, requests(50), BATCH))
    assert engine.starts < 12
