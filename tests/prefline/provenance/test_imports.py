"""Which files a rule depends on: a script and what it imports of the project, read from the code."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from sweeps import first_of, sweep

from prefline.errors import InputError
from prefline.provenance import imports
from prefline.provenance.imports import PACKAGES, code_hash, modules_of, own_modules


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A function that writes files of a project and returns what `modules_of` finds for a main.py.

    common__a is common/a.py, in scripts/ unless it begins with a package of the project or `mine`.
    """
    monkeypatch.chdir(tmp_path)

    def write(**sources):
        for name, text in sources.items():
            path = Path(*name.split("__")).with_suffix(".py")
            path = path if path.parts[0] in (*PACKAGES, "mine") else "scripts" / path
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return modules_of("scripts/main.py") if "main" in sources else None

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
    assert project(main=statement, prefline__files="") == ["prefline/files.py", "scripts/main.py"]


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


SCRIPTS = [(path,) for path in sorted(Path("scripts").glob("*/[!_]*.py"))]


# Of each step, its first script is a fast test.
@pytest.mark.parametrize(
    ("script",), sweep(SCRIPTS, first_of(lambda path: path.parent)), ids=lambda path: path.stem
)
def test_what_is_found_holds_what_a_script_really_imports(script):
    """Against Python itself: the project's modules that are loaded after importing the script."""
    module = ".".join(script.with_suffix("").parts)
    code = (
        f"import sys, importlib; importlib.import_module('{module}')\n"
        f"files = [m.__file__ for n, m in sys.modules.items() if n.split('.')[0] in {PACKAGES}]\n"
        "print('\\n'.join(file for file in files if file))"
    )
    loaded = subprocess.check_output([sys.executable, "-c", code], text=True).split()
    loaded = {str(Path(file).relative_to(Path.cwd())) for file in loaded}
    empty = {
        path for path in loaded if path.endswith("__init__.py") and "import" not in Path(path).read_text()
    }
    assert loaded - empty <= set(modules_of(script))


def test_reading_a_file_once_for_all_scripts_changes_no_hash():
    read, scripts = {}, [path for (path,) in SCRIPTS[::5]]
    assert [code_hash(path, None, read) for path in scripts] == [code_hash(path) for path in scripts]
    assert len({code_hash(path) for path in scripts}) == len(scripts)


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


# Files of the user's.


@pytest.mark.parametrize(
    "statement",
    [
        "import helper",
        "from . import helper",
        "from .helper import thing",
        "from mine import helper",
        "import mine.helper as h",
        "def late():\n    from mine.helper import *",
    ],
)
def test_what_a_users_file_imports_is_found(project, statement):
    project(mine__rewards=statement, mine__helper="import mine.deep.er", mine__deep__er="", mine__other="")
    assert modules_of("mine/rewards.py") == ["mine/deep/er.py", "mine/helper.py", "mine/rewards.py"]


def test_packages_that_a_users_file_is_in_or_imports_are_found(project):
    project(
        mine__deep__rewards="from ..lib.words import count\nfrom ...beyond import x",
        mine__lib__words="",
        mine__top="",
    )
    Path("mine/lib/__init__.py").write_text("import mine.top")
    Path("mine/__init__.py").write_text("A = 1")
    Path("mine/deep/__init__.py").touch()  # an empty one does nothing
    assert modules_of("mine/deep/rewards.py") == [
        "mine/__init__.py",
        "mine/deep/rewards.py",
        "mine/lib/__init__.py",
        "mine/lib/words.py",
        "mine/top.py",
    ]


def test_a_users_file_outside_the_project_has_its_siblings(project, tmp_path_factory):
    folder = tmp_path_factory.mktemp("elsewhere")
    (folder / "loss.py").write_text("import near, mine.helper")
    (folder / "near.py").write_text("")
    project(mine__helper="")
    assert modules_of(folder / "loss.py") == [f"{folder}/loss.py", f"{folder}/near.py", "mine/helper.py"]


def test_installed_packages_are_no_part_of_a_users_file(project):
    project(mine__loss="import torch, json\nfrom numpy import array")
    assert modules_of("mine/loss.py") == ["mine/loss.py"]


def test_the_projects_own_modules_count_but_are_not_the_users(project):
    project(
        mine__loss="from prefline import tables", prefline__tables="import prefline.deep", prefline__deep=""
    )
    assert modules_of("mine/loss.py") == ["mine/loss.py", "prefline/deep.py", "prefline/tables.py"]
    assert own_modules("mine/loss.py") == ["mine/loss.py"]
    assert own_modules("prefline/tables.py") == ["prefline/tables.py"]


@pytest.mark.parametrize("statement", ["import helper", "from . import helper", "from mine import helper"])
def test_an_edit_of_a_helper_is_other_code(project, statement):
    project(mine__rewards=statement, mine__helper="A = 1", mine__other="A = 1")
    before = code_hash("mine/rewards.py")
    project(mine__helper="A = 1  # a remark", mine__other="A = 2")
    assert code_hash("mine/rewards.py") == before
    project(mine__helper="A = 2")
    assert code_hash("mine/rewards.py") != before


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (b"a = 1\nb = = 2\n", "mine/helper.py, line 2 is not Python code: invalid syntax"),
        (b"\xff", "mine/helper.py cannot be read as Python code: "),
        (b"a\0", "mine/helper.py"),
    ],
)
def test_what_is_no_python_code_is_one_sentence(project, text, sentence):
    project(mine__rewards="import helper")
    Path("mine/helper.py").write_bytes(text)
    with pytest.raises(InputError, match=sentence) as error:
        code_hash("mine/rewards.py")
    assert "\n" not in str(error.value)


# What is known from an earlier start.


@pytest.fixture
def start(monkeypatch):
    """A function that begins anew, as another start of Snakemake does, with what was saved."""

    def forget():
        imports._known.cache_clear()
        imports._facts.cache_clear()
        monkeypatch.setattr(imports, "_used", {})

    forget()
    return forget


def test_a_second_start_parses_nothing_that_is_known_and_everything_that_is_new(project, start, monkeypatch):
    project(main="from prefline import a\nx = 1", prefline__a="y = 2")
    first, parsed = code_hash("scripts/main.py"), []
    imports.save()
    parse = imports._parsed
    monkeypatch.setattr(imports, "_parsed", lambda text, path: parsed.append(path) or parse(text, path))
    start()
    assert code_hash("scripts/main.py") == first and parsed == []
    changed = os.stat("prefline/a.py")
    project(prefline__a="y = 3")
    os.utime("prefline/a.py", ns=(changed.st_atime_ns, changed.st_mtime_ns))  # only the text tells
    start()
    assert code_hash("scripts/main.py") != first and set(parsed) == {"prefline/a.py"}


@pytest.mark.parametrize("text", ["", "[1]", "{", "\0"])
def test_damaged_knowledge_is_none(project, start, text):
    project(main="x = 1")
    first = code_hash("scripts/main.py")
    imports.KNOWN.parent.mkdir()
    imports.KNOWN.write_text(text)
    start()
    assert code_hash("scripts/main.py") == first
    imports.save()
    start()
    assert code_hash("scripts/main.py") == first
