"""Jobs run the code that was planned: from a copy, and a user's file only while it is unchanged."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from prefline.config import functions
from prefline.errors import InputError
from prefline.provenance import imports, plan

SCRIPT = "from prefline import number\nprint(number.NUMBER)\n"


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A project with one script, which prints a number of the library's."""
    monkeypatch.chdir(tmp_path)
    for path, text in {
        **{"prefline/__init__.py": "", "prefline/number.py": "NUMBER = 1\n", "scripts/__init__.py": ""},
        **{
            "scripts/say.py": SCRIPT,
            "rules/schemas/schema.yaml": "a: 1\n",
            "mine.py": "def one():\n    return 1\n",
        },
    }.items():
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).write_text(text)
    return tmp_path


def run(code, command="python -m scripts.say"):
    """What a job's command prints, with the prefix that it gets."""
    command = plan.shell_prefix(code, {}).replace("{{", "{").replace("}}", "}") + command
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "PYTHONPATH": "/nowhere"}
    return subprocess.check_output(["bash", "-c", command], text=True, env=environment).strip()


def test_a_job_runs_the_code_that_was_planned_whatever_is_there_now(project):
    code = plan.copy_code()
    planned = imports.code_hash("scripts/say.py", code)
    assert planned == imports.code_hash("scripts/say.py")
    Path("prefline/number.py").write_text("NUMBER = 2\n")
    assert run(code) == "1"
    assert imports.code_hash("scripts/say.py") != planned
    another = plan.copy_code()
    assert another != code and run(another) == "2" and run(code) == "1"


def test_a_jobs_own_hash_is_that_of_the_copy(project, monkeypatch):
    code = plan.copy_code()
    planned = imports.code_hash("scripts/say.py")
    Path("prefline/number.py").write_text("NUMBER = 2\n")
    monkeypatch.setenv(imports.CODE, code)
    assert imports.code_hash("scripts/say.py") == planned


def test_a_copy_that_was_damaged_is_made_anew(project):
    code = Path(plan.copy_code())
    (code / "prefline/number.py").write_text("NUMBER = 3\n")
    assert Path(plan.copy_code()) == code and run(str(code)) == "1"
    (code / "scripts/say.py").unlink()
    assert Path(plan.copy_code()) == code and run(str(code)) == "1"


def test_old_copies_go_but_not_that_of_the_latest_run(project):
    copies = []
    for number in range(3):
        Path("prefline/number.py").write_text(f"NUMBER = {number}\n")
        copies.append(Path(plan.copy_code()))
        os.utime(copies[-1], (0, 0))
        if number == 0:
            plan.write(time.time(), str(copies[0]), {}, {}, "")
    assert [copy.exists() for copy in copies] == [True, False, True]


def test_the_files_beside_modules_and_the_schema_are_in_the_copy(project):
    Path("scripts/page.html.j2").write_text("a page")
    code = Path(plan.copy_code())
    assert (code / "scripts/page.html.j2").read_text() == "a page"
    assert (code / "rules/schemas/schema.yaml").is_file()


def test_the_plan_of_a_run_has_its_config_in_order(project):
    config = {"runs": {"b": {"beta": 0.1}, "a": {}}, "none": None}
    plan.write(1.0, "code", config, {"mine.py": "hash"}, "rules")
    found = plan.read()
    assert list(found["config"]["runs"]) == ["b", "a"]
    assert found["config"] == config and found["own_code"] == {"mine.py": "hash"}
    assert {"torch", "numpy", "vllm"} <= found["packages"].keys()


def test_changed_rules_are_one_sentence(project):
    Path("Snakefile").write_text("a")
    before = plan.rules_hash(project)
    plan.check_rules(before, plan.rules_hash(project))
    Path("rules/more.smk").write_text("b")
    with pytest.raises(InputError, match="Snakefile or rules/ changed since this run was planned"):
        plan.check_rules(before, plan.rules_hash(project))


def test_a_users_file_that_changed_since_the_plan_is_one_sentence(project, monkeypatch):
    monkeypatch.setenv(imports.OWN_CODE, json.dumps({"mine.py": imports.code_hash("mine.py")}))
    assert functions.load("mine.py:one")() == 1
    Path("mine.py").write_text("def one():\n    return 2\n")
    with pytest.raises(InputError, match=r"mine\.py, or a module that it imports, changed since"):
        functions.load("mine.py:one")


def test_a_users_file_that_changes_while_it_runs_is_one_sentence(project, monkeypatch):
    """Its own code stands for an edit between the first look at it and its import."""
    Path("mine.py").write_text("open('helper.py', 'a').write('B = 2')\ndef one():\n    import helper\n")
    Path("helper.py").write_text("A = 1\n")
    monkeypatch.setenv(imports.OWN_CODE, json.dumps({"mine.py": imports.code_hash("mine.py")}))
    with pytest.raises(InputError, match=r"mine\.py, or a module that it imports, changed since"):
        functions.load("mine.py:one")


def test_an_edit_within_a_second_to_the_same_size_is_run(project):
    """Python's own .pyc would give the old code: it compares whole seconds and the size."""
    found = []
    for number in (1, 2):
        Path("mine.py").write_text(f"from helper import A\ndef one():\n    return A + {number}\n")
        Path("helper.py").write_text(f"A = {number}\n")
        for path in ("mine.py", "helper.py"):
            os.utime(path, (10**9, 10**9))
        code = "from prefline.config import functions; print(functions.load('mine.py:one')())"
        root = str(Path(plan.__file__).parents[2])
        found.append(
            subprocess.check_output(
                [sys.executable, "-Pc", code], text=True, env={**os.environ, "PYTHONPATH": root}
            )
        )
    assert found == ["2\n", "4\n"]
