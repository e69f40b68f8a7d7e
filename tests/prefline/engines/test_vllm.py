"""Real vLLM on this CPU, as the engine of a job and as a server, beside the transformers engine.

Starting vLLM takes longer than all tests of it, so that one engine and one server serve them all.
"""

import itertools
import json
import secrets
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import httpx2
import numpy as np
import psutil
import pytest
import torch
from small_model import ENGINE, make_model, make_tokenizer
from stand_in import endpoint
from transformers import LlamaForCausalLM

from prefline import engines, files
from prefline.data import tables
from prefline.engines import Request, Sampling, vllm
from prefline.engines.model_files import ModelFiles
from prefline.errors import InputError
from prefline.servers import conversation
from prefline.servers.client import KEY_VARIABLE
from scripts.rewards import rate_completions

pytest.importorskip("vllm")

VLLM = {
    "tensor_parallel_size": 1,
    "gpu_memory_percent": 90,
    "max_num_batched_tokens": 0,
    "max_model_len": 0,
    "quantization": None,
    "kv_cache_dtype": "auto",
    "enforce_eager": False,
}
SEEDS = {"seed_per": "completion", "seed": 1}
ENDS = (1, *range(4, 12))


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A policy with heads of 32, the smallest that vLLM's attention on CPUs takes."""
    path = tmp_path_factory.mktemp("models") / "policy"
    return make_model(path, make_tokenizer(), ends=ENDS, hidden_size=64)


@pytest.fixture(scope="module")
def engine(model):
    engine = engines.load("vllm", model, 32, "float32", **SEEDS, **VLLM)
    yield engine
    engine.close()


@pytest.fixture(scope="module")
def server(model):
    options = {"endpoint": None, "served_model": None, "vllm": VLLM | {"tokens": 90}, "journal": "nowhere"}
    engine = engines.load("server", model, 32, "float32", **SEEDS, **options)
    yield engine
    engine.close()


def requests(number, longest=40, copies=1):
    """`copies` of each of `number` prompts, of seeds of their own."""
    generator = np.random.default_rng(0)
    prompts = [
        [0, *generator.integers(12, 260, generator.integers(1, longest)).tolist()] for _ in range(number)
    ]
    return [
        Request(prompt, seed, f"prompt {row}, sample {sample}")
        for seed, ((row, prompt), sample) in enumerate(itertools.product(enumerate(prompts), range(copies)))
    ]


def greedy(max_tokens):
    return Sampling(temperature=0.0, top_p=1.0, top_k=0, max_tokens=max_tokens)


SAMPLING = Sampling(temperature=0.9, top_p=0.95, top_k=50, max_tokens=24)


def check_same(model, asked, made, expected):
    """Equal ids, but where the two likeliest tokens are a tie up to rounding: there, either is right."""
    reference = LlamaForCausalLM.from_pretrained(model)
    for request, one, other in zip(asked, made, expected, strict=True):
        if one == other:
            continue
        first = next(i for i, pair in enumerate(zip(one.ids, other.ids, strict=False)) if len(set(pair)) > 1)
        ids = torch.tensor([request.prompt_ids + one.ids[:first]])
        likeliest = reference(ids).logits[0, -1].topk(2)
        assert {one.ids[first], other.ids[first]} == set(likeliest.indices.tolist())
        assert likeliest.values[0] - likeliest.values[1] < 1e-4


@pytest.mark.slow
def test_greedy_is_the_same_from_the_engine_as_from_transformers(model, engine):
    asked = requests(60)
    made = engine.generate(asked, greedy(30))
    assert {completion.finish_reason for completion in made} == {"stop", "length"}
    check_same(
        model, asked, made, engines.load("transformers", model, 32, "float32").generate(asked, greedy(30))
    )


@pytest.mark.slow
def test_greedy_is_the_same_from_a_server(model, server, engine):
    asked = requests(60)
    made = server.generate(asked, greedy(30))
    assert server.report()["server_dialect"] == "token ids"
    check_same(model, asked, made, engine.generate(asked, greedy(30)))


@pytest.mark.slow
def test_a_server_of_the_jobs_own_answers_to_nobody_else(server):
    assert httpx2.get(f"{server.local.url}/models", timeout=100).status_code == 401
    wrong = {"Authorization": f"Bearer {server.local.key}x"}
    assert (
        httpx2.post(f"{server.local.url}/completions", json={}, headers=wrong, timeout=100).status_code == 401
    )


@pytest.mark.slow
def test_no_path_of_a_server_of_the_jobs_own_answers_without_its_key(server):
    root, right = server.local.url.removesuffix("/v1"), {"Authorization": f"Bearer {server.local.key}"}
    paths = httpx2.get(f"{root}/openapi.json", headers=right, timeout=100).json()["paths"]
    assert {"/invocations", "/tokenize", "/health"} <= set(paths)
    for path in [*paths, "/metrics", "/docs", "/openapi.json", "/no/such/path", "//invocations"]:
        for method in ("GET", "POST", "OPTIONS", "HEAD"):
            assert httpx2.request(method, f"{root}{path}").status_code == 401, (method, path)
    assert httpx2.get(f"{root}/health", headers=right, timeout=100).status_code == 200


@pytest.mark.slow
def test_a_server_draws_what_the_engine_draws(server, engine):
    asked = requests(20, copies=2)
    assert server.generate(asked, SAMPLING) == engine.generate(asked, SAMPLING)


@pytest.mark.slow
def test_it_ends_with_an_end_token_if_and_only_if_it_stopped(engine):
    for completion in engine.generate(requests(60, copies=2), SAMPLING):
        stopped = completion.finish_reason == "stop"
        assert (completion.ids[-1] in ENDS) == stopped
        assert not set(completion.ids[:-1]) & set(ENDS)
        assert stopped or len(completion.ids) == SAMPLING.max_tokens


@pytest.mark.slow
def test_seeds_make_the_completion_and_shards_do_not(engine):
    asked = requests(32, copies=3)
    whole = engine.generate(asked, SAMPLING)
    assert len({tuple(completion.ids) for completion in whole}) > 80
    parts = [
        made for start in range(0, 96, 24) for made in engine.generate(asked[start : start + 24], SAMPLING)
    ]
    assert parts == whole
    assert engine.generate(asked[::-1], SAMPLING)[::-1] == whole


@pytest.mark.slow
def test_more_prompt_tokens_than_a_step_takes(model, engine):
    """Prompts are never read in part: a CPU's generators cannot be turned back (no seeds then)."""
    asked = requests(600, longest=90)
    assert sum(len(request.prompt_ids) for request in asked) > 2 * engine.arguments["max_num_batched_tokens"]
    made = engine.generate(asked, Sampling(1.0, 1.0, 0, 2))
    assert all(completion.ids for completion in made)


@pytest.mark.slow
def test_what_cannot_be_answered_is_refused_before_the_first(engine):
    good = requests(3)
    with pytest.raises(
        InputError, match="long: a prompt of 100 tokens and max_tokens 30 do not fit the model's"
    ):
        engine.generate([*good, Request([5] * 100, 0, "long")], greedy(30))
    with pytest.raises(InputError, match="odd: the prompt has an id outside of the model's vocabulary of"):
        engine.generate([*good, Request([0, 9999], 0, "odd")], greedy(30))
    assert engine.generate(good, greedy(2))


@pytest.mark.slow
def test_a_conversation_with_a_real_server_ends_as_it_says(server):
    section, key = "rewards.helpful", server.local.key
    talk = conversation.Conversation([server.local.url], "policy", 12, 8, 60, section, key=key)
    assert str(talk.form) == "max_tokens+seed" and talk.form.neutral
    words = ["the cat", "the mat", "sat", "on the mat", "the cat", "cat", "a", "b"]
    asked = [
        conversation.Request([{"role": "user", "content": text}], temperature, 7, text)
        for temperature in (0.0, 0.9)
        for text in words
    ]
    made = dict(talk.answers(asked))
    assert {answer.finish_reason for answer in made.values()} <= {"stop", "length"}
    assert made[0] == made[4] and made[8] == made[12]
    assert made[0] != made[8]
    talk.close()


@pytest.mark.slow
def test_a_judge_that_babbles_leaves_its_verdicts_and_one_sentence(tmp_path, server, capsys, monkeypatch):
    monkeypatch.setenv(KEY_VARIABLE, server.local.key)
    question = [{"role": "user", "content": "x"}]
    prompt = {"prompt_id": "p", "messages": question, "prompt_ids": [0], "reference": None}
    row = {"prompt_id": "p", "completion_ids": [1], "finish_reason": "stop", "seed": 1}
    tables.write(tmp_path / "prompts.parquet", [prompt], tables.PROMPTS)
    tables.write(
        tmp_path / "completions.parquet",
        [row | {"sample": sample, "completion": f"cat {sample}"} for sample in range(4)],
        tables.COMPLETIONS,
    )
    (tmp_path / "rubric.txt").write_text("{prompt} {completion}")
    others = ("engine", "dtype", "seed-per", "vllm", "served-model")
    flags = {name: value for name, value in ENGINE.items() if name not in others} | {
        "prompts": tmp_path / "prompts.parquet",
        "completions": tmp_path / "completions.parquet",
        "rubric": tmp_path / "rubric.txt",
        "lowest": 1,
        "highest": 10,
        "model": "",
        "endpoint": json.dumps(endpoint(server.local.url, model="policy")),
        "max-tokens": 8,
        "seed": 1,
        "journal": tmp_path / "journal",
        "out": tmp_path / "helpful" / "train-00000.parquet",
    }
    words = [f"--{name}={value}" for name, value in flags.items()]
    for _ in range(2):
        with pytest.raises(InputError, match=r"4 of 4 ratings are missing, such as .*; make"):
            rate_completions.main(words)
    (kept,) = tmp_path.glob("journal/ratings/*/*.jsonl")
    assert len(kept.read_text().splitlines()) == 4 * 4
    assert "4 of 4 rows are in the journal" in capsys.readouterr().out


def sampling(directory, model, **flags):
    """The command of the script that samples completions of six prompts."""
    asked = requests(6)
    rows = [
        {"prompt_id": f"p{row}", "messages": [{"role": "user", "content": "x"}], "prompt_ids": one.prompt_ids}
        for row, one in enumerate(asked)
    ]
    tables.write(directory / "prompts.parquet", rows, tables.PROMPTS)
    values = ENGINE | {
        "engine": "vllm",
        "vllm": json.dumps({key: VLLM[key] for key in VLLM if key.replace("_", "-") not in ENGINE}),
        "prompts": directory / "prompts.parquet",
        "model": model,
        "num-completions": 3,
        "temperature": 1.0,
        "top-p": 1.0,
        "top-k": 0,
        "max-prompt-length": 60,
        "max-tokens": 12,
        "seed": 1,
        "journal": directory / secrets.token_hex(4),
        "out": directory / "completions.parquet",
        "metrics": directory / "metrics.json",
    }
    words = [word for key, value in (values | flags).items() for word in (f"--{key}", str(value))]
    return [sys.executable, "-m", "scripts.generate.generate_completions", *words]


def sample(directory, model, **flags):
    """Completions of six prompts from the script in a process of its own: (rows, metrics)."""
    subprocess.run(sampling(directory, model, **flags), check=True)
    completions = tables.read_rows(directory / "completions.parquet", tables.COMPLETIONS)
    return completions, files.read_json(directory / "metrics.json")


@pytest.mark.slow
def test_a_shard_of_one_seed(tmp_path, model):
    rows, metrics = sample(tmp_path, model, **{"seed-per": "shard"})
    assert [(row["prompt_id"], row["sample"]) for row in rows] == [
        (f"p{p}", k) for p in range(6) for k in range(3)
    ]
    assert len({tuple(row["completion_ids"]) for row in rows}) > 12
    assert metrics["made"] == 18 and metrics["engine"] == "vllm" and metrics["engine_restarts"] == 0


@pytest.mark.long
def test_a_shard_of_one_seed_is_repeatable(tmp_path, model):
    first, _ = sample(tmp_path, model, **{"seed-per": "shard"})
    assert sample(tmp_path, model, **{"seed-per": "shard"})[0] == first
    assert sample(tmp_path, model, **{"seed-per": "shard", "seed": 2})[0] != first


@pytest.mark.slow
def test_an_engine_that_is_killed_starts_again_and_loses_nothing(model, engine, capsys):
    asked = requests(80, copies=2)
    whole = engine.generate(asked, SAMPLING)
    made = {}
    for index, completion in engine.stream(asked, SAMPLING):
        if not made:
            for child in psutil.Process().children(recursive=True):
                if "EngineCore" in child.name():
                    child.kill()
        made[index] = completion
    assert [made[index] for index in range(len(asked))] == whole
    assert engine.report() == {"engine_restarts": 1}
    assert "the engine died (" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("engine", "number"),
    [
        pytest.param("vllm", signal.SIGKILL, marks=pytest.mark.slow),
        pytest.param("vllm", signal.SIGTERM, marks=pytest.mark.long),
        pytest.param("server", signal.SIGKILL, marks=pytest.mark.slow),
        pytest.param("server", signal.SIGTERM, marks=pytest.mark.long),
    ],
)
def test_a_killed_job_leaves_no_process_of_vllm(tmp_path, model, engine, number):
    """Engine core, worker, API server and resource trackers: alone they stay for minutes, 720 MB."""
    flags = {"engine": engine, "num-completions": 5000, "max-tokens": 60}
    job = subprocess.Popen(
        [sys.executable, "-m", "prefline.machine.lease_gpus", "0", *sampling(tmp_path, model, **flags)]
    )
    while not any(tmp_path.glob("*/*/*/*.jsonl")):  # the journal: it samples
        assert job.poll() is None
        time.sleep(0.1)
    others = psutil.Process(job.pid).children(recursive=True)
    assert any("EngineCore" in process.name() for process in others) and len(others) >= 2
    job.send_signal(number)
    assert job.wait() == -number
    left = psutil.wait_procs(others, timeout=30)[1]
    assert [process for process in left if process.status() != psutil.STATUS_ZOMBIE] == []


@pytest.mark.parametrize(
    ("configured", "asked", "context", "wanted"),
    [
        (0, 2048, 131_072, 2048),  # as Llama 3.1, whose whole context would fill a GPU of 24 GB
        (0, 1500, 131_072, 1536),
        (0, 9000, 4096, 4096),  # a longer prompt is refused, as the model does not know its positions
        (0, None, 4096, 4096),
        (8192, 1500, 131_072, 8192),
        (0, 700, None, 768),
    ],
)
def test_the_context_is_what_is_asked_within_the_models_own(configured, asked, context, wanted):
    files = SimpleNamespace(path="results/models/sft", context=context)
    assert vllm.context_length(files, configured, asked) == wanted


def test_a_model_without_a_context_needs_one_of_the_config():
    files = SimpleNamespace(path="results/models/sft", context=None)
    with pytest.raises(InputError, match=r"results/models/sft: names no context length; set generate\.vllm"):
        vllm.context_length(files, 0, None)


def test_rotary_positions_never_depend_on_what_is_asked(tmp_path):
    """longrope takes other factors beyond its original context, which vLLM decides by its own context."""
    rope = {"rope_type": "longrope", "rope_theta": 1e4, "original_max_position_embeddings": 96}
    rope |= {"short_factor": [1.0] * 8, "long_factor": [4.0] * 8}
    make_model(tmp_path, hidden_size=32, max_position_embeddings=4096, rope_parameters=rope)
    read = ModelFiles(tmp_path)
    assert {vllm.context_length(read, given, asked) for given in (0, 2000) for asked in (None, 3000)} == {96}


def test_more_gpus_than_the_job_was_given_is_one_sentence(monkeypatch, model):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    with pytest.raises(InputError, match="tensor_parallel_size is 2, but the job was given the GPUs 3;"):
        engines.load("vllm", model, 8, "float32", **SEEDS, **(VLLM | {"tensor_parallel_size": 2}))
