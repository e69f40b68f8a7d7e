"""Keys, code and names that come from elsewhere: what must not happen with them, whatever they hold."""

import argparse
import ast
import json
import os
import re
import runpy
import shlex
import subprocess
import sys
from pathlib import Path

import hostile_models
import hostile_programs
import injections
import pytest
import yaml
from configs import DEFAULT, changed, refused
from hypothesis import example, given
from hypothesis import strategies as st
from small_model import CHATML, make_tokenizer

from prefline.config import section
from prefline.engines.local_server import LocalServer
from prefline.errors import InputError
from prefline.servers.client import KEY_FILE_VARIABLE, KEY_VARIABLE, Client, environment_key
from prefline.text import chat

SOURCES = [
    path
    for folder in ("scripts", "prefline", "tools", "measurements", "data")
    for path in sorted(Path(folder).rglob("*.py"))
]
# What may load a model's own code: fetch_model takes code into a model only where the config allows it.
OWN_CODE = {"prefline/rewards/loading.py"}
# Names of modules and functions that run what they read.
UNSAFE = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
UNSAFE_CALLS = {"torch.load", "yaml.load", "os.system", "eval", "exec", "os.popen"}


def calls(path):
    """(name as written, call) for every call in a Python file."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), node


@pytest.mark.parametrize("path", SOURCES, ids=str)
def test_nothing_that_is_read_is_run(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            names = {alias.name for alias in node.names} | {getattr(node, "module", None)}
            assert not names & UNSAFE, f"{path}:{node.lineno}"
    for name, call in calls(path):
        keywords = {keyword.arg: keyword.value for keyword in call.keywords}
        assert name not in UNSAFE_CALLS, f"{path}:{call.lineno}"
        assert "shell" not in keywords and "allow_pickle" not in keywords, f"{path}:{call.lineno}"
        loads = name.rsplit(".", 1)[-1] == "from_pretrained" and name != "GenerationConfig.from_pretrained"
        if loads and str(path) not in OWN_CODE:
            # Without the argument, the library asks on the terminal whether to run a model's code.
            trusted = keywords.get("trust_remote_code")
            assert isinstance(trusted, ast.Constant) and trusted.value is False, f"{path}:{call.lineno}"
        if loads and "Model" in name:
            assert ast.unparse(keywords["use_safetensors"]) == "True", f"{path}:{call.lineno}"
        if "trust_remote_code" in keywords and str(path) not in OWN_CODE:
            assert ast.unparse(keywords["trust_remote_code"]) == "False", f"{path}:{call.lineno}"


def test_a_chat_template_runs_in_a_sandbox(tmp_path):
    escape = "{{ cycler.__init__.__globals__.os.system('touch " + str(tmp_path / "pwned") + "') }}"
    tokenizer = make_tokenizer(escape + CHATML)
    with pytest.raises(InputError, match="is unsafe"):
        chat.prompt_ids(tokenizer, [{"role": "user", "content": "a"}])
    # In a message it is text.
    tokenizer = make_tokenizer(CHATML)
    said = tokenizer.decode(chat.prompt_ids(tokenizer, [{"role": "user", "content": escape}]))
    assert escape in said
    assert not (tmp_path / "pwned").exists()


def test_the_page_has_the_numbers_of_what_is_tried():
    """Counts of the tests' own lists; the tests fail if anything of them gets through."""
    unicode = runpy.run_path("tests/prefline/data/test_not_unicode.py")
    overlays = runpy.run_path("tests/prefline/config/test_hostile_overlays.py")
    programs = [getattr(hostile_programs, name) for name in ("PROBES", "ATTEMPTS", "EXCESSES")]
    tried = {
        "files of models: broken": len(hostile_models.cases(Path("data/policy"))),
        "chat templates that compute": len(hostile_models.ENDLESS),
        "files of models with the ending": len(hostile_models.PROGRAMS),
        "rows and files": len(unicode["KINDS"]) + len(unicode["ENTRANCES"]) + 2 * len(unicode["WHOLE"]),
        "overlays of the config": len(overlays["REFUSED"]),
        "texts of models": len(injections.ALL),
        "programs in the sandbox": sum(map(len, programs)),
        "probes of files": len(programs[0]),
        "attempts at": len(programs[1]),
        "excesses": len(programs[2]),
    }
    page = Path("docs/security.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (.*) \| (\d+) \| 0 \|$", page, re.MULTILINE)
    found = {words: int(number) for words, number in rows}
    assert len(found) == len(tried)
    for begin, number in tried.items():
        assert [count for words, count in found.items() if words.startswith(begin)] == [number], begin


# What CI may do.

WORKFLOWS = sorted(Path(".github/workflows").glob("*.yaml"))


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_a_workflow_may_read_and_only_jobs_that_publish_may_write(path):
    workflow = yaml.safe_load(path.read_text())
    assert workflow["permissions"] == {"contents": "read"}
    for name, job in workflow["jobs"].items():
        written = {what for what, how in job.get("permissions", {}).items() if how == "write"}
        assert not written or name == "publish", name
        assert "contents" not in written
        used = [step["uses"] for step in job["steps"] if "uses" in step]
        assert all(re.fullmatch(r"actions/[\w-]+@(v\d+|[0-9a-f]{40})", one) for one in used), used
        if "packages" in written:
            assert all(re.fullmatch(r".*@[0-9a-f]{40}", one) for one in used), used
        for step in job["steps"]:
            assert "secrets." not in step.get("run", ""), "secrets reach no command line"


# Keys.


def test_the_environments_key_comes_before_the_files(tmp_path, monkeypatch):
    monkeypatch.delenv(KEY_VARIABLE, raising=False)
    monkeypatch.delenv(KEY_FILE_VARIABLE, raising=False)
    assert environment_key() is None
    file = tmp_path / "key"
    file.write_text("from the file\n".replace(" ", "-"))
    file.chmod(0o600)
    monkeypatch.setenv(KEY_FILE_VARIABLE, str(file))
    assert environment_key() == "from-the-file"
    monkeypatch.setenv(KEY_VARIABLE, "environment\r\n")
    assert environment_key() == "environment"


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o644])
def test_a_key_file_that_others_may_read_is_refused(tmp_path, monkeypatch, mode):
    (tmp_path / "key").write_text("canary")
    (tmp_path / "key").chmod(mode)
    monkeypatch.delenv(KEY_VARIABLE, raising=False)
    monkeypatch.setenv(KEY_FILE_VARIABLE, str(tmp_path / "key"))
    with pytest.raises(InputError, match=f"others may read {tmp_path}/key; chmod 600") as error:
        environment_key()
    assert "canary" not in str(error.value)
    monkeypatch.setenv(KEY_FILE_VARIABLE, str(tmp_path / "none"))
    with pytest.raises(InputError, match="none cannot be read: No such file"):
        environment_key()


@pytest.mark.parametrize("key", ["canary\ncanary", "canary\x00", "canarÿ"])
def test_a_key_that_no_header_takes_is_not_repeated(monkeypatch, key):
    monkeypatch.setattr(os, "environ", {KEY_VARIABLE: key})
    with pytest.raises(InputError, match="has characters that no key has") as error:
        Client(["http://127.0.0.1:1/v1"], 1, 1)
    assert "canar" not in str(error.value)


@pytest.mark.parametrize(
    "url", ["http://user:canary@host/v1", "http://host/v1?key=canary", "http://host/v1#canary"]
)
@pytest.mark.parametrize("urls", [lambda url: ["http://host/v1", url], lambda url: url, lambda url: {url: 1}])
def test_a_key_in_an_address_is_refused_and_not_repeated(url, urls):
    config = changed(("endpoints",), {"polite": {"kind": "openai", "model": "judge", "urls": urls(url)}})
    said = refused(config)
    assert "endpoints.polite.urls" in said and "canary" not in said


@pytest.mark.parametrize("section", ["generate", "benchmarks.alpaca"])
def test_a_key_in_an_address_at_an_old_place_is_not_repeated(section):
    config = changed(("benchmarks",), {"alpaca": {"kind": "alpaca_eval"}} if "." in section else {})
    (config["benchmarks"]["alpaca"] if "." in section else config["generate"])["servers"] = (
        "http://a:canary@b/v1"
    )
    said = refused(config)
    assert f"{section}.servers: moved to" in said and "canary" not in said


FAKE_SERVER = """
import json, os, sys
json.dump({"words": sys.argv, "key": os.environ["VLLM_API_KEY"]}, open(os.environ["NOTES"], "w"))
"""


def test_a_server_of_the_jobs_own_gets_a_random_key_that_no_other_process_sees(tmp_path, monkeypatch):
    """On a shared machine everyone reaches the port and reads command lines."""
    (tmp_path / "vllm/entrypoints/openai").mkdir(parents=True)
    (tmp_path / "vllm/entrypoints/openai/api_server.py").write_text(FAKE_SERVER)
    for package in ("vllm", "vllm/entrypoints", "vllm/entrypoints/openai"):
        (tmp_path / package / "__init__.py").touch()
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv(KEY_VARIABLE, "the user's")
    keys = set()
    for number in range(2):
        monkeypatch.setenv("NOTES", str(tmp_path / f"{number}.json"))
        server = LocalServer({"dtype": "float32"}, "--name")
        server.process.wait(300)
        server.close()
        noted = json.loads((tmp_path / f"{number}.json").read_text())
        assert noted["key"] == server.key and len(server.key) >= 32
        assert server.key not in " ".join(noted["words"])
        assert noted["words"][noted["words"].index("--host") + 1] == "127.0.0.1"
        assert "--served-model-name=--name" in noted["words"]
        assert Client([server.url], 1, 1, server.key).http.headers["Authorization"] == f"Bearer {server.key}"
        keys.add(server.key)
    assert len(keys) == 2


# Names and values of the config.

HOSTILE = [
    "$(touch pwned)",
    "`touch pwned`",
    "; touch pwned",
    "a b",
    "../../x",
    "{input}",
    "x\n",
    "-x",
    "é",
    "",
]


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("section", ["runs", "rewards", "models"])
def test_a_name_that_would_be_more_than_a_name_is_refused(section, name):
    entry = next(iter(DEFAULT[section].values()))
    config = changed((section,), {**DEFAULT[section], name: entry})
    assert section in refused(config)


@pytest.mark.parametrize(
    "path",
    [
        ("models", "start", "source"),
        ("models", "sft", "train_data"),
        ("prompts", "source"),
        ("mt_bench", "questions"),
        ("mt_bench", "references"),
        ("vibe_check", "prompts"),
    ],
)
@pytest.mark.parametrize("name", ["data/{input}.jsonl", "data/a\nb.jsonl"])
def test_a_path_that_snakemake_would_fill_in_is_refused(path, name):
    assert ".".join(path) in refused(changed(path, name))


@example({"source": "--evil=1", "model": "-x", "system": "-1e-05"})
@given(
    st.dictionaries(
        st.sampled_from(["system", "source", "model"]), st.text(st.characters(exclude_characters="\0"))
    )
)
def test_a_value_is_one_word_of_the_command_line(values):
    """For the shell, and for argparse: nothing becomes another command or another flag."""
    line = section.flags(values)
    parser = argparse.ArgumentParser()
    for key in ("system", "source", "model", "evil"):
        parser.add_argument(f"--{key}", type=section.reader({"type": "string"}))
    parsed = vars(parser.parse_args(shlex.split(line)))
    assert {key: value for key, value in parsed.items() if value is not None} == values


@pytest.mark.parametrize(
    "value", [*HOSTILE, "--evil=1", "{params.code} {{input}} {0}", "'\"\\", "$HOME ${HOME} !! ~"]
)
def test_a_shell_gives_a_value_to_the_program_as_it_is(tmp_path, value):
    line = f"{sys.executable} -c 'import sys; print(ascii(sys.argv[1:]))' {section.flags(source=value)}"
    said = subprocess.run(
        ["bash", "-c", line], cwd=tmp_path, capture_output=True, text=True, check=True
    ).stdout
    words = ast.literal_eval(said)
    assert words in (["--source", value], [f"--source={value}"])
    assert not list(tmp_path.iterdir())
