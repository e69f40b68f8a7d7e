"""Each key that names a file, a directory, a model or a function, with each way to type it wrongly.

The keys come from the schema. Every typo gets one sentence, which begins with the key and names the right
path where it is near. Each typo in the first key of each kind is a fast test, in all other keys a slow one.
"""

import copy
import shutil
from pathlib import Path

import pytest
from configs import DEFAULT, PROPERTIES, model_directory, put
from sweeps import first_of, sweep
from test_named_files import DATA, ENDPOINTS, FUNCTION, JUDGE, LLM

from prefline import paths
from prefline.config import loading as configuration
from prefline.config import named_files
from prefline.errors import InputError

RUN = {"iterations": 1, "init": "initial", "reference": "initial", "data": "current"}
POINTER = f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0' * 64}\nsize 12345\n"
FILES = {
    "own/template.jinja": "{{ messages }}",
    "own/asked.txt": "{prompt} {completion}",
    "own/reward.py": "def score(messages, completion, reference):\n    return 1.0\n",
    "own/loss.py": "def loss(batch):\n    return 0.0\n",
    "own/tasks/task.yaml": "task: own",
    "own/judgments/model.jsonl": "{}\n",
    "own/answers/model.jsonl": "{}\n",
    "own/given.json": "[{}]",
    "own/problems.jsonl": "{}\n",
    "own/df_gamed.csv": "a,b\n1,2\n",
}
BENCHMARK = {
    "include_path": "own/tasks",
    "references": "own/given.json",
    "problems": "own/problems.jsonl",
    "data": "own/problems.jsonl",
    "source": "own/problems.jsonl",
    "annotations": "own/given.json",
    "regression_data": "own/df_gamed.csv",
    "judgments": "own/judgments",
    "answers": "own/answers",
}


@pytest.fixture
def world(tmp_path, monkeypatch):
    """A folder with everything that `everything` names, which is the working directory."""
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    model_directory(tmp_path / "own/model")
    shutil.copytree("data", tmp_path / "data")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def everything():
    """A config in which every key that names a path has one that exists in `world`."""
    config = copy.deepcopy(DEFAULT)
    config["models"]["judge"] = {"source": "own/model", "chat_template": "own/template.jinja"}
    config["endpoints"] = ENDPOINTS
    config["rewards"]["asked"] = {**JUDGE, "rubric": "own/asked.txt"}
    config["rewards"]["counted"] = {**FUNCTION, "function": "own/reward.py:score"}
    config["prompts"]["preferences"]["use"] = True
    config["mt_bench"] |= {"judge": ["reference", "llm"], "judges": {"llm": LLM}}
    config["runs"]["own"] = {**RUN, "loss_type": "own/loss.py:loss"}
    config["benchmarks"] = {"own": BENCHMARK}
    for name in ("sft", "base", "reward_model"):
        config["models"][name]["chat_template"] = None
    return copy.deepcopy(config)


def value_at(config, path):
    for key in path:
        config = config[key] if isinstance(config, dict) and key in config else None
    return config


def keys():
    """{path of a key: kind of path}: every key of the schema that has one in `everything`."""
    found, config = {}, everything()
    for path, schema in PROPERTIES:
        kind = schema.get("path") or ("data" if path in DATA else None)
        kind = kind or ("function" if "FILE.py:NAME" in schema.get("description", "") else None)
        names = value_at(config, path[: path.index("*")]) if "*" in path else [None]
        for name in names if kind else ():
            one = tuple(name if part == "*" else part for part in path)
            if one == ("models", "sft", "source") or isinstance(value_at(config, one), str):
                found[one] = kind
    # Names of built-in losses are no paths; test_runs.py has their typos.
    losses = {path for path in found if path[-1] == "loss_type" and path[1:2] != ("own",)}
    return {path: kind for path, kind in found.items() if path not in losses}


def sentence(world, path, value):
    """What is said of `everything` with a value at `path`; None if nothing is."""
    try:
        if path[0] == "benchmarks":
            named_files.check({"benchmarks": {"own": {path[-1]: value}}})
            return None
        config = everything()
        del config["benchmarks"]
        put(config, path, value)
        named_files.check(named_files.used(configuration.load({**config, "benchmarks": {}})))
    except InputError as error:
        return str(error)


def split(value):
    """(path, ":NAME" or "") of a value that may be FILE.py:NAME."""
    path, _, name = value.rpartition(":")
    return (path, f":{name}") if path.endswith(".py") else (value, "")


def made(path, content):
    """Make a file and return its path (str)."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_bytes(content.encode() if isinstance(content, str) else content)
    return str(path)


def linked(path, target):
    Path(path).symlink_to(target)
    return str(path)


def upper(path):
    return str(path.with_name(path.name.upper()))


def copied(path, to, broken, content):
    """A copy of a model directory in which one file is broken."""
    shutil.copytree(path, to)
    return str(Path(made(f"{to}/{broken}", content)).parent)


# How a path (Path) is mistyped. NEAR: the sentence then names the right one.
NEAR = {
    "a letter is missing": lambda path: str(path.with_name(path.name[:-2] + path.name[-1])),
    "wrong case": upper,
    "blank at the end": lambda path: f"{path} ",
    "blank at the beginning": lambda path: f" {path}",
    "in the home folder": lambda path: f"~/{path}",
    "a variable": lambda path: f"$NO_SUCH_FOLDER/{path}",
    "from another folder": lambda path: path.name,
    "a backslash": lambda path: str(path).replace("/", "\\"),
    "quotes within quotes": lambda path: f"'{path}'",
    "as an address": lambda path: f"file:///{path}",
}
ANY = {
    "missing": lambda path: f"gone/{path.name}",
    "wrong ending": lambda path: f"gone/{path.stem}.zip",
    "another kind": lambda path: "data/README.md" if path.is_dir() else "own",
    "a device": lambda path: "/dev/null",
    "a broken link": lambda path: linked(f"link{path.suffix}", "gone"),
    "a link to itself": lambda path: linked(f"loop{path.suffix}", f"loop{path.suffix}"),
    "name of the hub": lambda path: "Qwen/Qwen2.5-0.5B",
    "page of the hub": lambda path: "https://huggingface.co/Qwen/Qwen2.5-0.5B",
    "hub without commit": lambda path: "hub:Qwen/Qwen2.5-0.5B",
    "hub with a blank": lambda path: "hub: Qwen/Qwen2.5-0.5B@main#train",
    "hub in capitals": lambda path: "HUB:Qwen/Qwen2.5-0.5B@main",
    "a file without permission": lambda path: made(f"locked{path.suffix}", "{}\n"),
    "too long": lambda path: "a" * 5000 + path.suffix,
    "nothing": lambda path: "",
}
FILE = {
    "empty": lambda path: made(f"empty{path.suffix}", ""),
    "a pointer of Git LFS": lambda path: made(f"pointer{path.suffix}", POINTER),
}
MODEL = {
    "an empty directory": lambda path: str(Path(made("empty/x/y", "")).parents[1]),
    "the folder above": lambda path: "own",
    "weights alone": lambda path: str(Path(made("weights/model.safetensors", "x")).parent),
    "without weights": lambda path: "data/policy",
    "an adapter": lambda path: str(Path(made("adapter/adapter_config.json", "{}")).parent),
    "for llama.cpp": lambda path: str(Path(made("cpp/model.gguf", "x")).parent),
    "weights of Git LFS": lambda path: copied(path, "a", "model.safetensors", POINTER),
    "a tokenizer of Git LFS": lambda path: copied(path, "b", "tokenizer.json", POINTER),
    "empty weights": lambda path: copied(path, "c", "model.safetensors", ""),
    "a broken config": lambda path: copied(path, "d", "config.json", "{"),
    "a shard is missing": lambda path: copied(
        path, "e", "model.safetensors.index.json", '{"weight_map": {"a": "model-2.safetensors"}}'
    ),
}
KEYS = keys()
CASES = [
    (path, kind, typo)
    for path, kind in KEYS.items()
    for typo in {
        **NEAR,
        **ANY,
        **(FILE if kind in ("file", "fetched_file", "data", "function") else {}),
        **(MODEL if kind == "model" else {}),
    }
    if (path[:2], typo) not in ((("models", "start"), "without weights"),)
    if path[0] != "benchmarks" or typo not in ("nothing", "hub with a blank")  # which its pattern refuses
]


def test_the_keys_are_those_of_the_schema_and_their_good_paths_are_taken(world):
    marked = {path[-1] for path, schema in PROPERTIES if "path" in schema} | {path[-1] for path in DATA}
    # Corrections are of references that are fetched, and these are a path.
    assert {path[-1] for path in KEYS} == marked - {"corrections"} | {"loss_type"}
    assert len(KEYS) >= 20 and set(KEYS.values()) == {
        *("model", "data", "file", "fetched_file", "directory", "function")
    }
    for path in KEYS:
        good = value_at(everything(), path) or "own/model"
        assert sentence(world, path, good) is None, path


@pytest.mark.parametrize(
    ("path", "kind", "typo"),
    sweep(CASES, first_of(lambda path, kind, typo: (kind, typo))),
    ids=lambda one: str(one).replace(" ", "_"),
)
def test_a_typo_is_one_sentence(world, monkeypatch, path, kind, typo):
    good = value_at(everything(), path) or "own/model"
    file, name = split(good)
    typed = {**NEAR, **ANY, **FILE, **MODEL}[typo](Path(file))
    if typo == "a file without permission":  # root may read everything
        if Path(file).is_dir():
            typed = file
        access = paths.os.access
        monkeypatch.setattr(paths.os, "access", lambda one, mode: str(one) != typed and access(one, mode))
    said = sentence(world, path, typed + name if typed else "")
    assert said is not None, f"{typed} is taken"
    # Of a function, its arguments are checked in the same step: the message begins with their section.
    assert said.startswith(f"config: {'.'.join(path[:-1] if kind == 'function' else path)}"), said
    assert "\n" not in said and len(said) < 800
    assert typed[:60] in said or repr(typed)[1:60] in said
    if typo in NEAR and kind != "function":
        assert f"did you mean {file}?" in said, said


@pytest.mark.parametrize("path", [path for path, kind in KEYS.items() if kind == "function"], ids=".".join)
def test_a_function_that_the_file_lacks_is_named_with_the_nearest(world, path):
    file, name = split(value_at(everything(), path))
    said = sentence(world, path, file + name[:-1])
    assert said.startswith(f"config: {'.'.join(path[:-1])}")
    assert f"{file} has no function {name[1:-1]!r}; did you mean {name[1:]!r}?" in said
