"""Broken set-ups of many kinds end `snakemake checks` with one sentence each, and without a traceback.

PLANNED are refused when the plan is made. FOUND are found by the checks, whose table has the sentence.
"""

import re
import sys

import pytest
import safetensors.torch
from conftest import ROOT, snakemake
from stand_in import StandIn

sys.path.insert(0, str(ROOT / "tests/helpers"))
import large_models
import small_model

from prefline import files
from prefline.machine import device

OWN = "train: {learning_rate: 1.0e-4}\nmodels: {sft: {source: %s}}\n"
LENGTH = "{kind: function, function: 'prefline/rewards/functions.py:%s', arguments: {}, "
LENGTH += "weight: 1, normalize: none}"
OF_8B = OWN % "large" + "runs: {rebel: null}\nmachine: {gpus: 1, gpu_memory: 24}\n"
OF_8B += f"rewards: {{reward_model: null, length: {LENGTH % 'length'}}}"
# Overlays, and parts of the sentences.
PLANNED = {
    "a model that is missing": (OWN % "mine", "models.sft.source: there is no directory mine "),
    "a model without weights": (OWN % "data/policy", "models.sft.source: data/policy has no weights"),
    "a key that is unknown": ("train: {betta: 0.1}", "train has no key 'betta'; did you mean 'beta'?"),
    "a value out of range": ("train: {learning_rate: -1}", "train.learning_rate: -1 is less than or equal"),
    "a loss that is unknown": ("train: {loss_type: dop}", "train.loss_type: there is no loss 'dop'"),
    "a function that is missing": (f"rewards: {{own: {LENGTH % 'lenght'}}}", "did you mean 'length'?"),
    "an endpoint that is unknown": (
        "mt_bench: {judge: own, judges: {own: {endpoint: gone, max_tokens: 8}}}",
        "mt_bench.judges.own.endpoint",
    ),
    "too little memory on the GPU": (OF_8B, " GB for the model large, the card has 24 ("),
    "too little disk": (OWN % "larger", "GB free, and the planned jobs write at least "),
    "a rule that is unknown": (
        "machine: {rules: {train_polici: {gpu: 1}}}",
        "machine.rules has 'train_polici', which is no rule; did you mean 'train_policy'?",
    ),
}
ON_GPU = ("too little memory on the GPU",)


@pytest.fixture
def said(project):
    """A function that runs `snakemake checks` with an overlay, and returns what it says."""

    def run(overlay, *arguments):
        (project / "mine.yaml").write_text(overlay)
        process = snakemake(project, "checks", *arguments, "--configfile", "mine.yaml", check=False)
        output = process.stdout + process.stderr
        assert process.returncode == 1, output[-3000:]
        assert "Traceback" not in output and not re.search(r'File "|in file "', output), output[-3000:]
        return output

    run.project = project
    return run


@pytest.mark.slow
def test_a_set_up_that_cannot_be_planned_is_one_sentence(said, monkeypatch):
    large_models.write(said.project / "large", large_models.LLAMA_8B)
    large_models.write(said.project / "larger", (4096, 32, 32, 8, 14336, 10**12))
    for name, (overlay, sentence) in PLANNED.items():
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0" if name in ON_GPU else "")
        target = ["results/models/dpo-1"] if name.startswith("too little") else []
        lines = said(overlay, *target).splitlines()
        (found,) = [line for line in lines if line.startswith("Error: ")]
        assert sentence in found, name
        assert not [line for line in lines if line.startswith("rule ")], name
    assert not (said.project / "results/models").exists()


FOUND = {
    "data/prompts": "no column 'question', only ['messages']",
    "data/vibe_check": "role 'robot'",
    "data/base": "9 rows read, 0 kept, dropped: 9 blank",
    "models/start": "no column 'question'",
    "endpoints/mt_bench.judges.dead": "the server is not reachable",
    "endpoints/mt_bench.judges.gone": "the server has no model 'gone', only 'judge'",
    "endpoints/mt_bench.judges.keyless": "the environment has no NO_SUCH_KEY",
    "endpoints/mt_bench.judges.wrong_key": "the server wants a key (status 401)",
    "endpoints/mt_bench.judges.silent": "no verdict can be read in the answer",
    "endpoints/mt_bench.judges.poor": "a budget of 0 allows no call",
}
JUDGED = """
prompts: {{columns: {{prompt: question}}}}
vibe_check: {{prompts: robots.jsonl}}
models: {{base: {{train_data: blank.jsonl}}}}
endpoints:
  dead: {{kind: openai, urls: ["http://127.0.0.1:9/v1"], model: judge}}
  gone: {{kind: openai, urls: ["{silent}"], model: gone}}
  keyless: {{kind: openai, urls: ["{silent}"], model: judge, key_variable: NO_SUCH_KEY}}
  wrong_key: {{kind: openai, urls: ["{keyed}"], model: judge, key_variable: WRONG_KEY}}
  silent: {{kind: openai, urls: ["{silent}"], model: judge}}
  poor: {{kind: openai, urls: ["{silent}"], model: judge, max_calls: 0}}
mt_bench:
  judge: [dead, gone, keyless, wrong_key, silent, poor]
  judges: {{dead: {{endpoint: dead, max_tokens: 8}}, gone: {{endpoint: gone, max_tokens: 8}},
    keyless: {{endpoint: keyless, max_tokens: 8}}, wrong_key: {{endpoint: wrong_key, max_tokens: 8}},
    silent: {{endpoint: silent, max_tokens: 8}}, poor: {{endpoint: poor, max_tokens: 8}}}}
"""


def failed(output):
    """{name: sentence} of the checks that failed, by the table at the end."""
    rows = re.findall(r"^FAILED +(\S+) +(.*)$", output, re.MULTILINE)
    assert len(dict(rows)) == len(rows)
    return dict(rows)


def compare(found, wanted):
    assert found.keys() == wanted.keys()
    assert {name: found[name] for name, part in wanted.items() if part not in found[name]} == {}


@pytest.mark.slow
def test_data_and_endpoints_that_no_job_could_use(said, monkeypatch):
    files.write_jsonl(said.project / "robots.jsonl", [{"messages": [{"role": "robot", "content": "a"}]}] * 9)
    files.write_jsonl(said.project / "blank.jsonl", [{"text": ""}] * 9)
    monkeypatch.setenv("WRONG_KEY", "a key of somebody else")
    silent, keyed = StandIn(name="judge", says=lambda _: "Both are fine."), StandIn(name="judge", key="right")
    try:
        output = said(JUDGED.format(silent=silent.url, keyed=keyed.url))
    finally:
        silent.close()
        keyed.close()
    assert "somebody" not in output
    compare(failed(output), FOUND)


MODELS = """
models: {sft: {source: shouting}, two: {source: two}, torn: {source: torn}, constant: {source: constant}}
train: {learning_rate: 1.0e-4}
rewards:
  reward_model: null
  two: {model: two, KEYS}
  torn: {model: torn, KEYS}
  constant: {model: constant, KEYS}
""".replace("KEYS", "kind: classifier, head_weights: null, dtype: float32, weight: 1, normalize: none")
SHOUTING = small_model.TEMPLATE.replace("message.content", "message.content | upper")


@pytest.mark.slow
@pytest.mark.skipif(not device.for_cpus(device.facts([])), reason="builds for CUDA are installed")
def test_models_and_gpus_that_no_job_could_use(said, monkeypatch):
    small_model.make_model(said.project / "shouting", small_model.make_tokenizer(SHOUTING))
    for name, labels in (("two", 2), ("torn", 1), ("constant", 1)):
        model = said.project / name
        small_model.make_model(model, architecture="LlamaForSequenceClassification", num_labels=labels)
        weights = safetensors.torch.load_file(model / "model.safetensors")
        if name == "torn":
            del weights["model.layers.0.mlp.up_proj.weight"]
        if name == "constant":
            weights["score.weight"].zero_()
        safetensors.torch.save_file(weights, model / "model.safetensors", metadata={"format": "pt"})
    compare(
        failed(said(MODELS, "--resources", "gpu=0")),
        {
            "models/sft": "the chat template drops the user's message",
            "fetch_model/two": "a reward model with 2 labels where one is needed",
            "fetch_model/torn": "lacks the weights model.layers.0.mlp.up_proj.weight",
            "rewards/constant": "to a good and to a bad answer; it ranks nothing",
        },
    )
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    said.project.joinpath("results/checks/table.txt").unlink()
    compare(
        failed(said("seed: 1", "results/checks/device/gpu.json")),
        {"device/gpu": "GPU 0 cannot be used: torch "},
    )
