"""Each whole recipe runs to the picture with the small world, by the rules that its own models run with.

They run one after the other in one folder, as if somebody changed the config, so that what stands in for the
published models is trained once. Those that bring no rule of their own are `long`.
"""

import csv
import json
import math
import shutil
from concurrent.futures import ThreadPoolExecutor

import pytest
from conftest import ROOT, copy_project, planned, snakemake

# What only the published models, data and judges need, and what only their stand-ins do.
PUBLISHED_ONLY = {"fetch_mt_bench", "ask_judge"}
SMALL_ONLY = {"pretrain", "train_sft", "train_reward_model", "judge_mt_bench"}


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A copy of the project, with the pretraining that this checkout may have finished."""
    project = copy_project(tmp_path_factory.mktemp("recipes") / "project")
    if (ROOT / "work/pretrain").is_dir():
        shutil.copytree(ROOT / "work/pretrain", project / "work/pretrain")
    return project


def rules(project, *overlays):
    """The rules (set) that make the picture from nothing, as a dry run says; no network is asked.

    Without checks: a finished model has others than one that is trained.
    """
    made = planned(project, "results/winrate.png", "--forceall", "--configfile", *overlays)
    return {rule for rule in made if not rule.startswith("check_")}


def run(project, name):
    """Run a recipe with the small world; (the policies of its picture, metrics of each, params of each)."""
    overlays = [f"recipes/{name}.yaml", "recipes/small.yaml"]
    with ThreadPoolExecutor() as pool:
        published, small = pool.map(lambda files: rules(project, *files), (overlays[:1], overlays))
    assert published - PUBLISHED_ONLY <= small | {"fetch_model"}
    assert small - SMALL_ONLY <= published
    snakemake(project, "results/winrate.png", "--configfile", *overlays)
    assert (project / "results/winrate.png").read_bytes().startswith(b"\x89PNG")
    winrate = json.loads((project / "results/winrate.json").read_text())
    policies = set(winrate["policies"])
    for policy in policies:
        assert sum(winrate["win_rates"][policy]["overall"][one] for one in ("win", "tie", "loss")) == 160
    metrics = {p: json.loads((project / f"results/training/{p}/metrics.json").read_text()) for p in policies}
    return policies, metrics


def params(project, policy, folder="models"):
    """What a policy was trained with, as its manifest says."""
    return json.loads((project / f"results/{folder}/{policy}.json").read_text())["lineage"]["params"]


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("dagster-dpo", marks=pytest.mark.long),
        pytest.param("hf-dpo-2024", marks=pytest.mark.slow),
    ],
)
def test_dpo_with_adapters_on_given_pairs(project, name):
    policies, metrics = run(project, name)
    assert policies == {"dpo-1"}
    trained = params(project, "dpo-1", "adapters")
    assert trained["peft"]["r"] == 256 and trained["peft"]["quantization"] == "nf4"
    assert trained["global_batch_size"] == {"dagster-dpo": 8, "hf-dpo-2024": 12}[name]
    assert metrics["dpo-1"]["eval_loss"] < metrics["dpo-1"]["eval_loss_before"]
    tokenized = json.loads((project / "results/samples/sft/tokenized.json").read_text())
    longest = tokenized["limits"]["max_length"]
    assert longest == 1512 if name == "dagster-dpo" else 20 < longest < 300
    dropped = tokenized["splits"]["train"]["dropped"]
    assert (sum(dropped.values()) > 0) == (name == "hf-dpo-2024"), "the longest twentieth, or none"
    first = (project / "results/samples/sft/preferences.json").read_text()
    assert sum(json.loads(first)["kept"].values()) == 60


@pytest.mark.slow
def test_rebel(project):
    policies, metrics = run(project, "rebel")
    assert policies == {"rebel-1"}
    trained = params(project, "rebel-1")
    assert (trained["eta"], trained["loss_type"], trained["temperature"]) == (1e6, "rebel", 0.8)
    assert metrics["rebel-1"]["train_steps"] >= 1
    generation = json.loads((project / "results/samples/sft/generation/train-00000.json").read_text())
    assert generation["engine"] == "vllm"


@pytest.mark.long
def test_online_rlhf(project):
    """Three iterations, each from the policy before, with fresh prompts and the initial reference."""
    policies, _ = run(project, "online-rlhf")
    assert policies == {"dpo-1", "dpo-2", "dpo-3"}
    asked = [
        (project / f"results/samples/{policy}/prompts/train-00000.parquet").read_bytes()
        for policy in ("sft", "dpo-1", "dpo-2")
    ]
    assert len(set(asked)) == 3
    assert (project / "results/samples/dpo-2/ref_logps/sft/0000.parquet").is_file()
    assert params(project, "dpo-3")["label_smoothing"] == 0.1


@pytest.mark.long
def test_hf_rlhf_2023(project):
    policies, metrics = run(project, "hf-rlhf-2023")
    assert policies == {"ppo-1"}
    assert metrics["ppo-1"]["eval_kl_before"] == pytest.approx(0, abs=1e-3)
    assert params(project, "sft", "adapters")["peft"]["r"] == 16
    assert params(project, "reward_model", "adapters")["peft"]["r"] == 8


@pytest.mark.long
@pytest.mark.parametrize("name", ["first_day", "eight_billion"])
def test_our_own_recipes(project, name):
    policies, metrics = run(project, name)
    assert policies == {"dpo-1"}
    folder = {"first_day": "adapters", "eight_billion": "models"}[name]
    trained = params(project, "dpo-1", folder)
    assert trained["global_batch_size"] == {"first_day": 32, "eight_billion": 128}[name]
    assert (trained["peft"] is not None) == (name == "first_day")
    assert metrics["dpo-1"]["eval_loss_before"] == pytest.approx(math.log(2), abs=1e-3)
    assert metrics["dpo-1"]["train_steps"] >= 1


@pytest.mark.slow
def test_best_of_n(project):
    """Fine-tuning on the best completions prefers them to the others, from the pairs that DPO would train on.

    The small world has too few of them to make unseen ones likelier.
    """
    (project / "alone.yaml").write_text("runs: {dpo: null, rebel: null}\n")
    overlays = ["recipes/best_of_n.yaml", "recipes/small.yaml", "alone.yaml"]
    snakemake(project, "results/training/best_of_n-1/metrics.json", "--configfile", *overlays)
    metrics = json.loads((project / "results/training/best_of_n-1/metrics.json").read_text())
    assert params(project, "best_of_n-1")["loss_type"] == "sft"
    with (project / "results/training/best_of_n-1/log.csv").open() as log:
        losses = [float(row["loss"]) for row in csv.DictReader(log)]
    assert sum(losses[8:]) < sum(losses[:8]), "the second epoch knows the completions of the first"
    assert metrics["eval_rewards/margins"] > 0


@pytest.mark.slow
def test_verifiable_rewards_teach_sums(project):
    """Exact match on held-out sums rises by 15 points, and the intervals do not overlap."""
    target, overlays = "results/benchmarks/benchmarks.csv", ["recipes/verifiable.yaml", "recipes/sums.yaml"]
    snakemake(project, target, "results/benchmarks/contamination.csv", "--configfile", *overlays)
    with (project / target).open() as table:
        found = {(row["policy"], row["metric"]): float(row["value"]) for row in csv.DictReader(table)}
    assert found["grpo-1", "exact_match"] >= found["sft", "exact_match"] + 0.15
    assert found["grpo-1", "exact_match/low"] > found["sft", "exact_match/high"]
    metrics = json.loads((project / "results/training/grpo-1/metrics.json").read_text())
    at_random = metrics["eval_rewards/right"] - metrics["eval_rewards/right_before"]
    assert at_random >= 0.15, "at temperature 1 too, where the start policy is right more often"
    assert found["grpo-1", "failed"] == found["sft", "failed"] == 0
    with (project / "results/benchmarks/contamination.csv").open() as table:
        seen = {row["found"] for row in csv.DictReader(table) if row["benchmark"] == "problems"}
    assert seen == {"0"}
