"""A job that cannot run on the machine's GPUs is refused when the plan is made, with what would fit."""

import re
import sys

import pytest
from conftest import ROOT, snakemake
from project_copy import PRETENDED_GPUS
from sweeps import sweep

sys.path.insert(0, str(ROOT / "tests/helpers"))
import large_models
import small_model

OVERLAY = """
models: {{sft: {{source: big}}}}
rewards: {{reward_model: null, length: {{kind: function, function: "prefline/rewards/functions.py:length",
  arguments: {{}}, weight: 1.0, normalize: none}}}}
runs: {{rebel: null}}
train: {{dtype: bfloat16, learning_rate: 5.0e-7}}
logps: {{dtype: bfloat16}}
machine: {{gpus: {gpus}, gpu_memory: {memory}}}
"""


@pytest.mark.parametrize(
    ("gpus", "memory", "fits"), [(1, 24, False), pytest.param(8, 80, True, marks=pytest.mark.slow)]
)
def test_a_training_is_measured_against_the_card(project, monkeypatch, gpus, memory, fits):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", ",".join(map(str, range(gpus))))
    large_models.write(project / "big", large_models.LLAMA_8B)
    (project / "o.yaml").write_text(OVERLAY.format(gpus=gpus, memory=memory))
    process = snakemake(project, "-n", "results/models/dpo-1", "--configfile", "o.yaml", check=False)
    said = process.stdout + process.stderr
    assert (process.returncode == 0) == fits, said[-2000:]
    if not fits:
        (sentence,) = [line for line in said.splitlines() if "train_policy needs about " in line]
        assert "GB, the card has 24 (" in sentence and "; set " in sentence
        assert "Traceback" not in said


@pytest.mark.slow
def test_a_model_of_the_hub_is_measured_when_it_is_fetched_and_before_other_jobs(project, monkeypatch):
    overlay = OVERLAY.replace("source: big", f"source: hub:some/model@{'a' * 40}")
    (project / "o.yaml").write_text(overlay.format(gpus=1, memory=0.5))
    small_model.make_model(project / "hub", small_model.make_tokenizer())
    fetch_model = project / "scripts/models/fetch_model.py"
    download = "        snapshot_download(\n"
    assert download in fetch_model.read_text()
    copied = f'        return shutil.copytree("hub", directory, dirs_exist_ok=True)\n{download}'
    fetch_model.write_text(fetch_model.read_text().replace(download, copied))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    monkeypatch.setenv("PYTHONPATH", PRETENDED_GPUS)
    process = snakemake(project, "results/models/dpo-1", "--configfile", "o.yaml", check=False)
    said = process.stdout + process.stderr
    assert process.returncode == 1 and "Traceback" not in said, said[-3000:]
    assert (
        "\nError: compute_ref_logps needs about 0.8 GB for the model sft, the card has 0.5 (CUDA 0.8, "
        in said
    )
    made = {path.name for path in (project / "results/models").iterdir()}
    assert made == {"sft", "sft.json"}
    assert not (project / "results/samples").exists()


JUDGED = """
models: {judge: {source: judge}}
endpoints: {own: {kind: vllm, model: judge}}
mt_bench: {judge: local, judges: {local: {endpoint: own, max_tokens: 512}}}
machine: {gpus: 8}
"""


REFUSED = [
    ("{gpu_memory: 24, gpus: 1}", (), "ask_judge needs about 1"),
    ("{gpus: 8}", ["ask_judge:tensor_parallel_size=3", "ask_judge:gpu=3"], "tensor_parallel_size 3 does"),
    ("{gpus: 8}", ["train_policy:gpu=3"], "train_policy: global_batch_size 16 cannot be shared by 3"),
    ("{gpus: 8}", ["train_policy:gpu=0", "train_policy:gres=gpu:3"], "cannot be shared by 3 devices"),
    ("{gpus: 8}", ["train_policy:parallel=fsdp"], "train_policy: the resource `parallel` is 'fsdp', but"),
    ("{gpus: 8}", ["train_policy:gres=two:gpus"], "set-resources: train_policy:gres=two:gpus: "),
]


@pytest.mark.parametrize(
    ("machine", "settings", "sentence"),
    sweep(REFUSED, lambda *case: case == REFUSED[0]),
)
def test_what_would_fail_after_hours_of_other_jobs_is_refused_now(
    project, monkeypatch, machine, settings, sentence
):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", ",".join(map(str, range(8))))
    large_models.write(project / "judge", large_models.QWEN_72B)
    (project / "o.yaml").write_text(JUDGED.replace("{gpus: 8}", machine))
    given = ["--set-resources", *settings] if settings else []
    process = snakemake(project, "-n", "results/winrate.png", *given, "--configfile", "o.yaml", check=False)
    said = process.stdout + process.stderr
    assert process.returncode == 1 and sentence in said, said[-2000:]
    assert "Traceback" not in said


@pytest.mark.parametrize("gives", ["machine", "command line"])
@pytest.mark.slow
def test_a_training_whose_gpus_are_set_to_none_gets_the_memory_of_one_on_the_cpu(project, monkeypatch, gives):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    large_models.write(project / "big", large_models.LLAMA_8B)
    overlay, given = OVERLAY.format(gpus=1, memory=80), ["--set-resources", "train_policy:gpu=0"]
    if gives == "machine":
        overlay, given = overlay.replace("gpus: 1", "rules: {train_policy: {gpu: 0}}, gpus: 1"), []
    (project / "o.yaml").write_text(overlay)
    said = snakemake(project, "-n", "results/models/dpo-1", *given, "--configfile", "o.yaml").stdout
    (resources,) = re.findall(r"rule train_policy:\n(?:    .*\n)*?    resources: (.*)", said)
    assert "gpu=0" in resources and int(re.search(r"mem_mb=(\d+)", resources)[1]) > 100_000


def test_memory_below_what_jobs_need_is_told_once(project, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    large_models.write(project / "big", large_models.SMALL)
    (project / "o.yaml").write_text(OVERLAY.format(gpus=1, memory=80).replace("80}", "80, memory: 5}"))
    said = snakemake(project, "-n", "results/models/dpo-1", "--configfile", "o.yaml")
    lines = (said.stdout + said.stderr).splitlines()
    (line,) = [line for line in lines if line.startswith("machine.memory is 5 GB, less than these jobs need")]
    assert " train_policy " in line and "compute_ref_logps" not in line
