"""Warnings of a training on rewards: each is said once, where it begins, and ends the training if told to."""

import types

import pytest

from prefline.errors import InputError
from prefline.training import warning_signs

QUIET = {
    **{"loss": 0.1, "rewards/differing": 0.5, "entropy": 2.0, "kl": 0.01},
    **{"completions/mean_length": 20.0, "completions/clipped_ratio": 0.0},
}


def said(capsys, courses, stop_at=(), steps=40):
    """{step: warning} of a training whose columns have these courses, functions of the step."""
    found, history = {}, []
    for step in range(1, steps + 1):
        made = QUIET | {name: course(step) for name, course in courses.items()}
        history.append({name: value for name, value in made.items() if value is not None} | {"step": step})
        warning_signs.check(
            types.SimpleNamespace(log_history=history, global_step=step, max_steps=steps), stop_at
        )
        if text := capsys.readouterr().out:
            found[step] = text
    return found


SIGNS = {
    "entropy": (
        "entropy",
        lambda step: 2.0 * 0.8**step,
        "the entropy fell from .* per token, .* raise beta or",
    ),
    "length": (
        "completions/mean_length",
        lambda step: 20.0 + 3 * step,
        "mean length of the completions grew from .* tokens; check what the reward pays for, set rank",
    ),
    "kl": (
        "kl",
        lambda step: 0.03 * step,
        "the KL from the reference is 0.5. nats per token, beyond 0.5; read co",
    ),
}


@pytest.mark.parametrize("name", SIGNS)
def test_a_sign_is_said_where_it_begins(name, capsys):
    column, course, text = SIGNS[name]
    ((step, found),) = said(capsys, {column: course}).items()
    assert found.startswith(f"warning: step {step} of 40: ") and found.count("\n") == 1
    with pytest.raises(InputError, match=rf"^step {step} of 40: .*{text}.*stop_at has {name}, which ends"):
        said(capsys, {column: course}, [name])
    others = [other for other in warning_signs.SIGNS if other != name]
    assert said(capsys, {column: course}, others) == {step: found}
    assert "\n" not in found[:-1]


def test_completions_that_are_cut_off_are_a_sign_of_length(capsys):
    ((step, text),) = said(capsys, {"completions/clipped_ratio": lambda step: float(step > 10)}).items()
    assert step == 15 and "62% of the completions were cut off; raise max_completion_length" in text


def test_what_comes_back_is_said_again(capsys):
    course = {"kl": lambda step: float(step < 10 or step > 30)}
    assert list(said(capsys, course)) == [1, 35]


@pytest.mark.parametrize("iterations", [1, 2])
def test_every_eight_idle_steps_are_said(iterations, capsys):
    """Steps on the completions of an earlier step are as idle as that one was."""

    def differing(step):
        return None if (step - 1) % iterations else float(step <= 4)

    found = said(capsys, {"rewards/differing": differing})
    assert list(found) == [12, 20, 28, 36]
    assert "in the last 16 steps no completions of the same prompt differed in reward" in found[20]


def test_a_short_training_that_learned_nothing_says_so_at_its_end(capsys):
    assert list(said(capsys, {"rewards/differing": lambda _: 0.0}, steps=3)) == [3]
    assert not said(capsys, {"rewards/differing": lambda step: float(step == 1)}, steps=3)


def test_nothing_is_said_of_a_quiet_training(capsys):
    assert not said(capsys, {})
    assert not said(capsys, {"kl": lambda _: None, "entropy": lambda _: None}), "beta 0 has no KL"
