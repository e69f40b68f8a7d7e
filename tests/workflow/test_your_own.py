"""The examples of docs/your_own.md and docs/your_data.md, with their files, run as the pages describe."""

import json
import math
import re
import shutil
import subprocess
import sys

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from conftest import QUICK, ROOT, planned, snakemake
from snakemake.utils import update_config
from stand_in import StandIn

from prefline.config import loading as configuration
from prefline.data import reading

PAGE = "\n".join((ROOT / f"docs/{name}.md").read_text(encoding="utf-8") for name in ("your_own", "your_data"))
FILES = dict(re.findall(r"^`(mine/\S+)`:\n\n```\w+\n(.*?)^```$", PAGE, re.M | re.S))
SHELL = "\n".join(re.findall(r"^```bash\n(.*?)^```$", PAGE, re.M | re.S)).splitlines()
# {overlay: target} of the commands that run the workflow; what the others say is done before.
OVERLAYS = {
    overlay: target
    for target, overlay in (
        re.fullmatch(r"snakemake (\S+) --configfile (\S+)", line).groups()
        for line in SHELL
        if line.startswith("snakemake")
    )
    if target != "judging_costs"
}
PREPARATION = "\n".join(line for line in SHELL if not line.startswith("snakemake"))


@pytest.fixture
def copy_of_files(tmp_path):
    """A folder with the page's files."""
    (tmp_path / "mine").mkdir()
    for name, text in FILES.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    return tmp_path


@pytest.fixture
def copy(finished, tmp_path):
    """The finished project with the page's files in it, and what the page has done before it runs them."""
    shutil.copytree(finished, tmp_path / "copy", symlinks=True)
    (tmp_path / "copy/mine").mkdir()
    for name, text in FILES.items():
        (tmp_path / "copy" / name).write_text(text, encoding="utf-8")
    pairs = [json.loads(line) for line in FILES["mine/pairs.jsonl"].splitlines()]
    columns = {"prompt": "question", "chosen": "good", "rejected": "bad"}
    table = pa.table({name: [pair[of] for pair in pairs] for name, of in columns.items()})
    pq.write_table(table, tmp_path / "copy/mine/pairs.parquet")
    subprocess.run(["bash", "-euc", PREPARATION], cwd=tmp_path / "copy", check=True)
    return tmp_path / "copy"


@pytest.fixture
def judge():
    """A language model whose verdicts are a matter of how much it is asked."""
    server = StandIn(says=lambda payload: f"[[{'AB'[len(str(payload)) % 2]}]]", name="judge")
    yield server
    server.close()


def test_every_file_of_the_page_is_found():
    named = set(re.findall(r"mine/\w+\.\w+", PAGE))
    # Commands make two; one is a source of a list, and the fixture `copy` makes the parquet.
    made = {"mine/judge_prompts.jsonl", "mine/chat.jinja", "mine/more.csv", "mine/pairs.parquet"}
    assert named - FILES.keys() == made
    assert len(FILES) == 18 and len(OVERLAYS) == 8
    assert set(OVERLAYS.values()) == {"results/winrate.png"}


CONFIGS = [
    block for block in re.findall(r"^```yaml\n(.*?)^```$", PAGE, re.M | re.S) if block not in FILES.values()
]


@pytest.mark.parametrize("block", CONFIGS)
def test_what_is_no_file_is_a_config(block):
    whole = yaml.safe_load((ROOT / "config.yaml").read_text(encoding="utf-8"))
    update_config(whole, yaml.safe_load(block))
    assert configuration.load(whole)


def test_pairs_of_other_forms_are_read_as_the_page_says(copy_of_files):
    """ShareGPT with system messages, LLaMA-Factory's form, and KTO's labels."""
    found = {}
    for block in CONFIGS:
        given = yaml.safe_load(block).get("prompts", {}).get("preferences")
        if given and "columns" in given:
            columns = {"chosen_reward": None, "rejected_reward": None, **given["columns"]}
            rules = {"special_tokens": "drop", "max_dropped": 0}
            source = str(copy_of_files / given["source"])
            data = reading.Data("pairs", source, columns, rules, unpaired="label" in columns)
            found[given["source"]] = list(data)
            data.finish()
    (pair,) = found["mine/sharegpt.jsonl"]
    assert [message["role"] for message in pair["messages"]] == ["system", "user"]
    assert (pair["chosen"], pair["rejected"]) == ("12.", "Let us have tea first.")
    (pair,) = found["mine/llama_factory.json"]
    assert [message["role"] for message in pair["messages"]] == ["user"]
    assert (pair["chosen"], pair["rejected"]) == ("12.", "Let us have tea first.")
    assert [row["chosen"] is not None for row in found["mine/labels.jsonl"]] == [True, False, True, False]


@pytest.mark.slow
def test_all_of_them_together(copy, judge):
    """Overlays add up; of the default's runs none, and of the loss's run one policy, so that it is short."""
    overlay = FILES["mine/judge.yaml"].replace("http://localhost:8000/v1", judge.url)
    assert judge.url in overlay
    (copy / "mine/judge.yaml").write_text(overlay, encoding="utf-8")
    (copy / "short.yaml").write_text("runs: {dpo: null, rebel: null}\n")
    alone = ("mine/pairs.yaml", "mine/sft.yaml", "mine/whole.yaml")
    together = [name for name in OVERLAYS if name not in alone]
    said = snakemake(copy, "judging_costs", *QUICK, *together, "short.yaml")
    assert "dpop-1 against sft" in said.stdout + said.stderr and "to be made: 8 calls" in said.stdout
    assert not judge.asked
    snakemake(copy, "results/winrate.png", *QUICK, *together, "short.yaml")

    def result(name):
        return json.loads((copy / "results" / name).read_text(encoding="utf-8"))

    assert result("records/models/sft.json.json")["snakemake"]["rule"] == "fetch_model"
    texts = [json.loads(line)["question"] for line in FILES["mine/prompts.jsonl"].splitlines()]
    pool = pq.read_table(copy / "results/prompts/pool.parquet")
    assert {messages[-1]["content"] for messages in pool["messages"].to_pylist()} == set(texts)
    rewards = pq.read_table(copy / "results/samples/sft/rewards/brief/train-00000.parquet")["reward"]
    assert len(set(rewards.to_pylist())) > 1 and max(rewards.to_pylist()) <= 1.5
    metrics = result("training/dpop-1/metrics.json")
    assert metrics["eval_loss_before"] == pytest.approx(math.log(2), abs=1e-5)
    verdicts = ["how few words it needs" in asked["messages"][0]["content"] for asked in judge.asked]
    assert verdicts == [False, True, False] + [True] * 8, (
        "the check's trial and question; the job's trial, then two questions of two turns in both orders"
    )
    assert result("winrate.json")["policies"] == ["dpop-1"]


@pytest.mark.slow
def test_pairs_that_are_there_take_the_place_of_samples(copy):
    said = snakemake(copy, "results/models/dpo-1.json", *QUICK, "mine/pairs.yaml")
    jobs = set(re.findall(r"^(?:local)?rule (\w+):", said.stdout + said.stderr, re.M))
    making = {"import_preferences", "tokenize_preferences", "compute_ref_logps", "train_policy"}
    assert jobs - {"check_data", "check_model"} == making
    pairs = [json.loads(line) for line in FILES["mine/pairs.jsonl"].splitlines()]
    made = pq.read_table(copy / "results/samples/sft/preferences.parquet").to_pylist()
    assert {row["chosen"] for row in made} == {pair["good"] for pair in pairs}


# What each overlay alone has run, and what it does not.
PLANNED = {
    "mine/model.yaml": ("fetch_model train_policy", "pretrain train_sft"),
    "mine/sft.yaml": ("fetch_model train_sft train_policy", "pretrain train_reward_model"),
    "mine/whole.yaml": ("fetch_model import_preferences train_policy ask_judge", "train_sft"),
    "mine/prompts.yaml": ("prepare_prompts generate_completions", "train_sft train_reward_model"),
    "mine/pairs.yaml": ("import_preferences train_policy", "generate_completions build_preferences"),
    "mine/reward.yaml": ("apply_reward_function build_preferences", "prepare_prompts train_reward_model"),
    "mine/judge.yaml": ("answer_mt_bench ask_judge", "judge_mt_bench train_sft"),
    "mine/loss.yaml": ("train_policy", "prepare_prompts train_reward_model compute_ref_logps"),
}


@pytest.mark.slow
@pytest.mark.parametrize("overlay", OVERLAYS)
def test_what_each_alone_runs(copy, overlay):
    process = snakemake(copy, OVERLAYS[overlay], *QUICK, overlay, "-n")
    jobs = set(re.findall(r"^(?:local)?rule (\w+):", process.stdout + process.stderr, re.M))
    run, not_run = (set(rules.split()) for rules in PLANNED[overlay])
    assert run <= jobs and not jobs & not_run
    if overlay == "mine/loss.yaml":
        assert planned(copy, "results/models/dpop-1.json", *QUICK, overlay) == {"train_policy": 1}


def lineage(directory, path):
    return subprocess.run(
        [sys.executable, "-m", "tools.lineage", path], cwd=directory, capture_output=True, text=True
    )


@pytest.mark.slow
def test_a_module_that_a_loss_imports_is_code_of_its_training_alone(copy):
    losses, helper = copy / "mine/losses.py", copy / "mine/helper.py"
    helper.write_text("POWER = 1\n")
    losses.write_text(f"from . import helper\n{losses.read_text()}".replace("lost)", "lost**helper.POWER)"))
    target = ["results/models/dpop-1.json", *QUICK, "mine/loss.yaml"]
    assert planned(copy, *target) == {"train_policy": 1}
    snakemake(copy, *target)
    assert planned(copy, *target) == {}
    process = lineage(copy, "results/models/dpop-1.json")
    assert process.returncode == 0 and ", as it is now: mine/losses.py" in process.stdout, process.stderr
    helper.write_text("POWER = 1  # a remark\n")
    assert planned(copy, *target) == {}
    helper.write_text("POWER = 2\n")
    assert planned(copy, *target) == {"train_policy": 1}
    process = lineage(copy, "results/models/dpop-1.json")
    assert process.returncode == 1
    assert ", changed since: mine/losses.py" in process.stdout
    assert process.stderr.startswith("not verified: mine/helper.py has changed since")
    assert planned(copy, "results/models/dpo-1.json", *QUICK, "mine/loss.yaml") == {}


@pytest.mark.slow
def test_a_module_that_a_reward_imports_is_code_of_its_rewards(copy):
    rewards, helper = copy / "mine/rewards.py", copy / "mine/helper.py"
    helper.write_text("PART = 0.1\n")
    rewards.write_text(f"import helper\n{rewards.read_text()}".replace("0.1", "helper.PART"))
    target = ["rewards_sft", *QUICK, "mine/reward.yaml"]
    snakemake(copy, *target)
    assert planned(copy, *target) == {}
    helper.write_text("PART = 0.2\n")
    jobs = planned(copy, *target)
    assert jobs.pop("rewards_sft") == 1 and list(jobs) == [PLANNED["mine/reward.yaml"][0].split()[0]]
    process = lineage(copy, "results/samples/sft/rewards/brief/train-00000.parquet")
    assert process.stderr.startswith("not verified: mine/helper.py has changed since")
    said = snakemake(copy, *target, "-n", "--config", "rewards={brief: {arguments: {word: 8}}}", check=False)
    assert "rewards.brief: arguments" in said.stdout + said.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ("losses.py:dpop", "losses.py:dpo", "mine/losses.py has no function 'dpo'; did you mean 'dpop'?"),
        ("losses.py:dpop", "nothing.py:dpop", "there is no file mine/nothing.py (seen from "),
        (
            "{lam: 5.0}",
            "{lamb: 5.0}",
            "loss_arguments lacks 'lam', which mine/losses.py:dpop takes",
        ),
        ("{lam: 5.0}", "{lam: 5.0, tau: 1}", "mine/losses.py:dpop does not take 'tau'; known: lam"),
    ],
)
def test_a_loss_that_does_not_fit_is_one_sentence_before_any_job(copy, old, new, sentence):
    overlay = copy / "mine/loss.yaml"
    overlay.write_text(overlay.read_text().replace(old, new))
    process = snakemake(copy, "results/winrate.png", *QUICK, "mine/loss.yaml", check=False)
    said = process.stdout + process.stderr
    assert process.returncode and sentence in said and "Traceback" not in said
