"""Which files a rule depends on: a script and what it imports of the project, read from the code."""

import subprocess
import sys
from pathlib import Path

import pytest

from prefline.provenance.imports import code_hash, modules_of


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A function that writes files of a project and returns what `modules_of` finds for scripts/main.py."""
    monkeypatch.chdir(tmp_path)

    def write(**sources):
        for name, text in sources.items():
            path = Path("scripts", *name.split("__")).with_suffix(".py")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return modules_of("scripts/main.py")

    return write


def paths(*names):
    return sorted(f"scripts/{name}.py" for name in names)


@pytest.mark.parametrize(
    "statement",
    [
        "from prefline import files",
        "import prefline.files",
        "import prefline.files as f",
        "from prefline.files import write_json",
        "def late():\n    from prefline import files",
        "if True:\n    import os, prefline.files",
    ],
)
def test_every_form_of_import_is_found(project, statement):
    assert project(main=statement, common__files="") == paths("main", "common/files")


def test_imports_of_imports_are_found_and_circles_end(project):
    found = project(
        main="from scripts.common import a",
        common__a="from scripts.common.b import thing",
        common__b="from scripts.common import a, c",
        common__c="",
        common__other="",
    )
    assert found == paths("main", "common/a", "common/b", "common/c")


def test_a_package_is_its_init(project):
    Path("scripts/engines").mkdir(parents=True)
    Path("scripts/engines/__init__.py").write_text("def load():\n    from scripts.engines import fast")
    found = project(main="from scripts import engines", engines__fast="import scripts.nowhere")
    assert found == paths("main", "engines/__init__", "engines/fast")


def test_other_packages_are_no_matter_of_the_project(project):
    Path("json.py").write_text("")
    assert project(main="import json\nfrom scriptsmith import x\nfrom . import y") == paths("main")


def test_nothing_is_imported(project):
    assert project(main="from scripts import bad", bad="raise SystemExit('imported')") == paths("main", "bad")


@pytest.mark.parametrize("script", sorted(Path("scripts").glob("*/[!_]*.py")), ids=lambda path: path.stem)
def test_what_is_found_holds_what_a_script_really_imports(script):
    """Against Python itself: the project's modules that are loaded after importing the script."""
    code = (
        f"import sys, importlib; importlib.import_module('scripts.{script.parent.name}.{script.stem}')\n"
        "files = [m.__file__ for n, m in sys.modules.items() if n.split('.')[0] in ('prefline', 'scripts')]\n"
        "print('\\n'.join(file for file in files if file))"
    )
    loaded = subprocess.check_output([sys.executable, "-c", code], text=True).split()
    loaded = {str(Path(file).relative_to(Path.cwd())) for file in loaded}
    empty = {
        path for path in loaded if path.endswith("__init__.py") and "import" not in Path(path).read_text()
    }
    assert loaded - empty <= set(modules_of(script))


def test_the_scorer_behind_the_seam_is_found():
    found = modules_of("scripts/rewards/score_completions.py")
    assert "prefline/rewards/sequence_classifier.py" in found
    assert "prefline/text/chat.py" in found


CODE = '''"""A module."""
import json


def double(x):
    """Twice x."""
    # a remark
    return 2 * x
'''


@pytest.mark.parametrize(
    "old, new",
    [
        ("A module.", "Another word for it."),
        ('"""A module."""\n', ""),
        ("    # a remark\n", ""),
        ('    """Twice x."""\n', ""),
        ("2 * x", "(\n        2 * x\n    )"),
    ],
)
def test_a_word_or_a_line_break_is_no_new_code(project, old, new):
    project(main="from scripts.common import a", common__a=CODE)
    before = code_hash("scripts/main.py")
    assert old in CODE
    Path("scripts/common/a.py").write_text(CODE.replace(old, new))
    assert code_hash("scripts/main.py") == before


@pytest.mark.parametrize(
    "old, new", [("2 * x", "3 * x"), ("2 * x", "2.0 * x"), ("(x)", "(x, y=None)"), ("json", "math")]
)
def test_another_instruction_is(project, old, new):
    project(main="from scripts.common import a", common__a=CODE)
    before = code_hash("scripts/main.py")
    assert old in CODE
    Path("scripts/common/a.py").write_text(CODE.replace(old, new))
    assert code_hash("scripts/main.py") != before
