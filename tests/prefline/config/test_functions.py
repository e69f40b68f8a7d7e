"""Functions that the config names as FILE.py:NAME: what they take, and what is refused."""

import inspect
import signal
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prefline.config import functions
from prefline.errors import InputError
from prefline.provenance import imports


@pytest.fixture
def write(tmp_path, monkeypatch):
    """A function that writes files into the folder `mine` of a project in which the test then is."""
    monkeypatch.chdir(tmp_path)
    others = [path for path in sys.path if not Path(path).is_relative_to(tmp_path.parents[1])]
    monkeypatch.setattr(sys, "path", [str(tmp_path), *others])  # as `python -m` has it

    def write(text, name="own.py"):
        path = Path("mine", name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")

    yield write
    for name in [name for name in sys.modules if name == "helper" or name.split(".")[0] == "mine"]:
        del sys.modules[name]


def refused(call, *args):
    with pytest.raises(InputError) as error:
        call(*args)
    assert "\n" not in str(error.value)
    return str(error.value)


# What a function takes, from its text.

NAMES = st.lists(st.sampled_from("abcdefgh"), unique=True, max_size=6)


@given(names=NAMES, optional=st.integers(0, 6), keyword=st.integers(0, 6), open_ended=st.booleans())
def test_parameters_are_those_that_python_sees(tmp_path_factory, names, optional, keyword, open_ended):
    keyword, optional = min(keyword, len(names)), min(optional, len(names))
    words = [f"{name}=1" if row >= len(names) - optional else name for row, name in enumerate(names)]
    if keyword:
        words.insert(len(names) - keyword, "*")
    text = f"def f({', '.join(['batch', *words, *['**more'] * open_ended])}):\n    pass\n"
    path = tmp_path_factory.mktemp("own") / "f.py"
    path.write_text(text)
    space = {}
    functions_made = compile(text, str(path), "exec")
    exec(functions_made, space)
    python = list(inspect.signature(space["f"]).parameters.values())[1:]
    wanted = {one.name: one.default is not one.empty for one in python if one.kind != one.VAR_KEYWORD}
    assert functions.parameters(f"{path}:f", ["batch"]) == (wanted, open_ended)


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("mine/own.py:dpo", "mine/own.py has no function 'dpo'; did you mean 'dpop'?"),
        ("mine/own.py:zzz", "mine/own.py has no function 'zzz'; it defines dpop, none_at_all"),
        ("mine/own.py:inner", "mine/own.py has no function 'inner'"),
        ("mine/owm.py:dpop", "there is no file mine/owm.py (seen from "),
        ("mine/owm.py:dpop", "did you mean mine/own.py?"),
        (
            "mine/own.py:none_at_all",
            "mine/own.py:none_at_all must take batch first, and everything else by name",
        ),
    ],
)
def test_a_function_that_is_not_there_is_refused_before_anything_runs(write, name, sentence):
    write("exit()\ndef dpop(batch):\n    def inner(batch): pass\ndef none_at_all(): pass\n")
    assert sentence in refused(functions.parameters, name, ["batch"])


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({}, "loss_arguments lacks 'lam', which mine/own.py:f takes"),
        ({"lam": 1, "lamb": 2}, "loss_arguments: mine/own.py:f does not take 'lamb'; did you mean 'lam'?"),
        ({"lam": 1, "x": 2}, "loss_arguments: mine/own.py:f does not take 'x'; known: lam, power"),
        ({"lam": 1, "beta": 2}, "loss_arguments: beta is a key beside loss_arguments; move it there"),
        ({"lam": 1, "batch": 2}, "does not take 'batch'"),
    ],
)
def test_arguments_are_held_against_the_signature(write, arguments, sentence):
    write("def f(batch, beta, lam, *, power=2): pass\ndef g(batch, **more): pass\n")
    given = (["batch"], "loss_arguments")
    functions.check(["mine/own.py:f"], *given, {"lam": 1}, ["beta"])
    functions.check(["mine/own.py:f"], *given, {"lam": 1, "power": 3}, ["beta"])
    functions.check(["mine/own.py:f", "mine/own.py:g"], *given, {"lam": 1, "anything": 3}, ["beta"])
    assert sentence in refused(functions.check, ["mine/own.py:f"], *given, arguments, ["beta"])


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("\nasync def f(batch): pass", "mine/own.py, line 2: f is async, but is called as a plain function;"),
        (
            "from helper import f",
            "mine/own.py, line 1: f is imported; name the file that defines it, or write",
        ),
        ("from helper import g as f", "mine/own.py, line 1: f is imported"),
        ("class f:\n    def __call__(self, batch): pass", "mine/own.py, line 1: f is a class; write `def"),
        ("class C: pass\nf = C()", "mine/own.py, line 2: f is made while the file runs, so its arguments"),
        (
            "import functools\nf = functools.partial(print)",
            "mine/own.py, line 2: f is made while the file runs",
        ),
        ("def f(batch): pass\nf = 3", "mine/own.py, line 2: f is made while the file runs"),
        (
            "if True:\n    def f(batch): pass",
            "mine/own.py, line 1: f is defined under a condition or in a loop",
        ),
        (
            "try:\n    from x import f\nexcept ImportError:\n    pass",
            "line 1: f is defined under a condition",
        ),
        ("f = g = f", "mine/own.py, line 1: f is made while the file runs"),
    ],
)
def test_what_is_no_function_is_refused_with_the_true_reason(write, text, sentence):
    write(text)
    assert sentence in refused(functions.parameters, "mine/own.py:f", ["batch"])


@pytest.mark.parametrize(
    "text",
    [
        "f = lambda batch, lam: 2 * lam",
        "def g(batch, lam): return 2 * lam\nf = h = g",
        "f = 3\ndef f(batch, lam): return 6",
    ],
)
def test_other_names_of_functions_are_functions(write, text):
    write(text)
    assert functions.parameters("mine/own.py:f", ["batch"]) == ({"lam": False}, False)
    assert functions.load("mine/own.py:f")(0, lam=3) == 6


@pytest.mark.parametrize(
    "content",
    [
        "\ufeffdef f(): return 'é'".encode(),
        "# -*- coding: latin-1 -*-\ndef f(): return 'é'".encode("latin-1"),
        "#!/usr/bin/python\n# vim: set fileencoding=cp1252 :\ndef f(): return 'é'".encode("cp1252"),
    ],
    ids=["mark", "latin-1", "cp1252"],
)
def test_a_file_is_read_in_its_coding_as_python_does(write, content):
    write("")
    Path("mine/own.py").write_bytes(content)
    assert functions.load("mine/own.py:f")() == "é"
    assert imports.code_hash("mine/own.py")


@pytest.mark.parametrize("content", [b"x = '\xff'", b"# coding: no-such-coding\n", b"x = 1\0"])
def test_a_file_that_python_cannot_read_is_one_sentence(write, content):
    write("")
    Path("mine/own.py").write_bytes(content)
    assert "mine/own.py" in refused(functions.load, "mine/own.py:f")


def test_a_number_that_yaml_reads_as_text_is_one_where_a_number_is_meant(write):
    """By the annotation, else by the default."""
    write(
        "def f(a: float, b=0.5, *, c: int = 1, d: str = '', e: 'float | None' = None): return [a, b, c, d, e]"
    )
    texts = {"a": "1e-3", "b": "2", "c": "3", "d": "1e-3", "e": "1e3"}
    functions.check(["mine/own.py:f"], [], "arguments", texts)
    assert functions.load("mine/own.py:f")(**texts) == [1e-3, 2, 3, "1e-3", 1e3]
    write("def g(a): return a", "other.py")
    assert "arguments.a: YAML reads 1e-3 as text; write 0.001 for the number" in refused(
        functions.check, ["mine/other.py:g"], [], "arguments", {"a": ["1e-3"]}
    )
    functions.check(["mine/other.py:g"], [], "arguments", {"a": "10"})


# Running it.


def test_what_a_module_of_ones_own_may_do(write):
    write("FACTOR = 2\n", "helper.py")
    write("THREE = 3\n", "other.py")
    write(
        "from __future__ import annotations\nimport dataclasses\nimport helper\n"
        "from . import helper as near\n"
        "from .other import THREE\nfrom mine import other\n"
        "@dataclasses.dataclass\nclass Point:\n    x: int\n    y: dataclasses.InitVar[int] = 0\n"
        "def f(a, b):\n    from .helper import FACTOR\n    "
        "return Point(FACTOR * near.FACTOR * helper.FACTOR).x * a + b * THREE // other.THREE\n",
        "own.py",
    )
    assert functions.load("mine/own.py:f")(1, b=2) == 10
    assert functions.load(str(Path("mine/own.py").resolve()) + ":f")(1, b=2) == 10


@pytest.mark.parametrize("name", ["a b; 'x' $(y).py", "v1.2/own.py", "two/three/own.py", "code/own.py"])
def test_names_that_are_no_names_of_modules(write, name):
    write("K = 1\n", str(Path(name).with_name("near.py")))
    write("from . import near\ndef f(): return near.K\n", name)
    assert functions.load(f"mine/{name}:f")() == 1


def test_a_link_to_a_file_whose_name_has_no_suffix_is_read(write):
    write("def f(): return 1\n")
    Path("mine/own.py").rename("4f1c")
    Path("mine/own.py").symlink_to("../4f1c")
    assert functions.load("mine/own.py:f")() == 1


def test_a_file_of_the_projects_is_its_module():
    from prefline.rewards import functions as ours

    assert functions.load("prefline/rewards/functions.py:length").__wrapped__ is ours.length


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("\nexit()\ndef f(): pass", "mine/own.py, line 2: SystemExit: None"),
        ("import sys\nsys.exit('stop\\nhere')\ndef f(): pass", "mine/own.py, line 2: SystemExit: stop here"),
        (
            "import nowhere_at_all\ndef f(): pass",
            "line 1: ModuleNotFoundError: No module named 'nowhere_at_all'",
        ),
        ("\n\n1 / 0\ndef f(): pass", "mine/own.py, line 3: ZeroDivisionError: division by zero"),
        ("from . import helper\ndef f(): pass", "mine/helper.py, line 2: KeyError: 'a'"),
        ("def f(: pass", "mine/own.py, line 1 is not Python code: "),
        ("def f(): pass\nglobals()['f'] = 3", "mine/own.py:f is 3 once the file has run, not a function"),
    ],
)
def test_a_file_that_does_not_run_is_one_sentence(write, text, sentence):
    write("\n{}['a']", "helper.py")
    write(text)
    assert sentence in refused(functions.load, "mine/own.py:f")


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        ("1 / 0", "mine/own.py, line 2: ZeroDivisionError: division by zero"),
        ("exit()", "mine/own.py, line 2: SystemExit: None"),
        ("__import__('json').loads('{')", "mine/own.py, line 2: JSONDecodeError: Expecting property name"),
    ],
)
def test_what_a_call_raises_names_the_line(write, body, sentence):
    write(f"def f():\n    {body}\n")
    assert sentence in refused(functions.load("mine/own.py:f"))


def test_a_job_that_is_stopped_in_a_call_ends_as_elsewhere(write):
    """By the handler of SIGTERM, which exits in whatever is running."""
    write("import os, signal\ndef f():\n    os.kill(os.getpid(), signal.SIGTERM)\n")
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        with pytest.raises(SystemExit, match="143"):
            functions.load("mine/own.py:f")()
    finally:
        signal.signal(signal.SIGTERM, before)


def test_two_files_with_a_helper_of_one_name_have_each_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for folder, value in (("a", 1), ("b", 100)):
        Path(folder).mkdir()
        Path(folder, "helper.py").write_text(f"K = {value}")
        Path(folder, "r.py").write_text(
            "import helper\n\ndef early():\n    return helper.K\n\n"
            "def late():\n    import helper\n    return helper.K\n"
        )
    Path("helper.py").write_text("K = 7")
    called = [functions.load(f"{folder}/r.py:{name}") for folder in "ab" for name in ("early", "late")]
    assert [one() for one in called] == [1, 1, 100, 100]
    assert [one() for one in reversed(called)] == [100, 100, 1, 1]
