"""A chain whose names, data and servers mean harm, and whose keys must not be seen: nothing comes of it."""

import json
import re
import secrets
import subprocess
import sys

import pyarrow.parquet as pq
import pytest
import yaml
from conftest import ROOT, copy_project, snakemake
from small_model import make_model, make_tokenizer
from stand_in import StandIn

CANARY = f"canary-{secrets.token_hex(8)}"
# What a shell, Snakemake, Python, Jinja or a path would make something of; braces are refused in some paths.
ODD = "a b; $(touch pwned) `touch pwned` '\" & #|>pwned \\ ~ *? $HOME -rf"
BRACED = ODD + " {input} {{x}} {0} {params.settings}"
TEXTS = [
    "$(touch pwned)",
    "`touch pwned`; touch pwned",
    "'; touch pwned; echo '",
    '" && touch pwned && echo "',
    "../../../pwned",
    "/etc/passwd",
    "{input} {{ 7 * 7 }} {% for x in y %} {output:q} {wildcards.policy}",
    "{{ cycler.__init__.__globals__.os.system('touch pwned') }}",
    "--out=pwned",
    "<script>touch('pwned')</script> | [a](javascript:pwned) |",
    "line one\nline two\r\n\ttouch pwned\x07\x1b[31m",
    "null\x00byte",
]
FUNCTION = "def score(messages, completion, reference):\n    return float(len(completion))\n"
RUBRIC = "Asked: {prompt}\n\nRight: {reference}\n\nSaid: {completion}\n\nEnd with [[a number]] from 1 to 10."
TARGETS = [
    "results/samples/sft/preferences.parquet",
    "results/mt_bench/answers/sft.jsonl",
    "results/vibe_check/sft.jsonl",
]


def answer(payload):
    return f"{TEXTS[len(payload['messages'][0]['content']) % len(TEXTS)]} [[{len(str(payload)) % 10 + 1}]]"


@pytest.fixture
def servers():
    """A policy's and a judge's, under odd names and behind a key."""
    started = [
        StandIn(make_tokenizer(), name=BRACED, key=CANARY),
        StandIn(name=f"judge {BRACED}", key=CANARY, says=answer),
    ]
    yield started
    for server in started:
        server.close()


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


@pytest.fixture
def project(tmp_path, servers):
    """The project with a config that has an odd thing wherever one can be."""
    directory = copy_project(tmp_path / "project")
    policy, judge = servers
    source = tmp_path / f"model {ODD}"
    make_model(source, make_tokenizer(), max_position_embeddings=4096)
    (source / f"tokenizer {ODD}.json").write_text("{}")
    prompts = [f"{text} and so on, {number}" for number in range(4) for text in TEXTS]
    rows = "".join(json.dumps({"prompt": text, "right": f"{text}!"}) + "\n" for text in prompts)
    data = directory / f"data/{ODD}/prompts {ODD}.jsonl"
    write(data, rows)
    function = directory / f"own {ODD}/{ODD}.py"
    write(function, FUNCTION)
    write(directory / f"own {ODD}/rubric", RUBRIC)
    config = {
        "models": {"sft": {"source": str(source)}},
        "train": {"learning_rate": 2e-4},
        "prompts": {
            "source": str(data.relative_to(directory)),
            "columns": {"prompt": "prompt", "reference": "right"},
            "system": f"-n\n{BRACED}",
            "max_prompt_length": 1024,
            "num_prompts": 12,
            "num_test_prompts": 2,
            "shard_size": 8,
        },
        "endpoints": {
            "policy": {"kind": "openai", "urls": [policy.url], "model": policy.name},
            "judge": {"kind": "openai", "urls": [judge.url], "model": judge.name},
        },
        "generate": {
            "engine": "server",
            "endpoint": "policy",
            "num_completions": 3,
            "max_tokens": 16,
        },
        "rewards": {
            "reward_model": None,
            "own": {
                "kind": "function",
                "function": f"own {ODD}/{ODD}.py:score",
                "arguments": {},
                "weight": 1.0,
                "normalize": "none",
            },
            "polite": {
                "kind": "judge",
                "endpoint": "judge",
                "rubric": f"own {ODD}/rubric",
                "lowest": 1,
                "highest": 10,
                "max_tokens": 64,
                "weight": 1.0,
                "normalize": "none",
            },
        },
        "vibe_check": {"prompts": str(data.relative_to(directory)), "columns": {"prompt": "prompt"}},
    }
    (directory / "odd.yaml").write_text(yaml.safe_dump(config))
    return directory


def files_of(directory):
    return sorted(path for path in directory.rglob("*") if path.is_file())


@pytest.mark.slow
def test_nothing_comes_of_hostile_names_and_no_key_is_seen(project, tmp_path, monkeypatch):
    known = {path.name for path in tmp_path.rglob("*")}
    key = tmp_path / "key"
    run = ["--configfile", "odd.yaml", "--", *TARGETS]
    monkeypatch.setenv("HF_TOKEN", f"{CANARY}-hub")
    monkeypatch.setenv("PREFLINE_API_KEY", f"{CANARY}-wrong")

    refused = snakemake(project, "--verbose", *run[:3], TARGETS[-1], check=False)
    said = refused.stdout + refused.stderr
    assert refused.returncode != 0
    assert "PREFLINE_API_KEY is refused" in said

    monkeypatch.delenv("PREFLINE_API_KEY")
    key.write_text(CANARY)
    key.chmod(0o600)
    monkeypatch.setenv("PREFLINE_API_KEY_FILE", str(key))
    made = snakemake(project, "--printshellcmds", *run)
    said += made.stdout + made.stderr
    said += snakemake(project, "--configfile", "odd.yaml", "--report", "report.html", "--", *TARGETS).stderr
    lineage = [sys.executable, "-m", "tools.lineage", TARGETS[0]]
    said += subprocess.run(lineage, cwd=project, capture_output=True, text=True, check=True).stdout
    assert "Nothing to be done" in snakemake(project, "-n", *run).stdout

    # All of it was done, with the texts as they are.
    pairs = pq.read_table(project / TARGETS[0])
    assert 0 < pairs.num_rows <= 12
    asked = " ".join(path.read_text() for path in [project / "results/vibe_check/sft.jsonl"])
    assert all(json.dumps(text)[1:-1] in asked for text in TEXTS[:9])

    assert CANARY not in said
    seen = [str(path) for path in files_of(tmp_path) if CANARY.encode() in path.read_bytes() and path != key]
    assert seen == []

    assert not [path for path in tmp_path.rglob("pwned*")]
    new = {path for path in tmp_path.rglob("*") if path.name not in known and path.parent == tmp_path}
    assert new == {key}, "nothing beside the project"
    folders = {path.name for path in project.iterdir()} - {path.name for path in ROOT.iterdir()}
    assert folders <= {
        ".snakemake", "results", "logs", "work", "odd.yaml", "report.html", f"own {ODD}"
    }  # fmt: skip
    odd = re.compile(r"[^\w./@=-]")
    inside = [path for folder in ("results", "logs", "work") for path in files_of(project / folder)]
    names = {str(path.relative_to(project)) for path in inside}
    taken = {name for name in names if odd.search(name)}
    assert all(name.startswith("results/fetched/sft/tokenizer ") for name in taken), "no name comes from data"
