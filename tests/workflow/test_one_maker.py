"""Each file has one rule that can make it, whatever the config: so no other rule makes it in silence."""

import json
import shutil
import subprocess
import sys

import pytest
from configs import model_directory
from conftest import QUICK, ROOT, snakemake

PEFT = {"r": 4, "lora_alpha": 8, "lora_dropout": 0.0, "target_modules": "all-linear"}
OVERLAYS = {
    "default": {},
    "finished start policy": {"models": {"sft": {"source": "model"}}},
    "all finished": {"models": {name: {"source": "model"} for name in ("base", "sft", "reward_model")}},
    "given pairs": {"prompts": {"preferences": {"use": True}}, "runs": {"rebel": None}},
    "adapters": {
        "models": {name: {"training": {"peft": PEFT}} for name in ("base", "sft", "reward_model")},
        "train": {"peft": PEFT},
    },
    "finished although adapters are set": {
        "models": {"sft": {"source": "model", "training": {"peft": PEFT}}},
        "runs": {"dpo": {"peft": PEFT}},
    },
}
# Prints {overlay: {path: names of the rules that can make it}}, for all paths that some overlay makes.
PROGRAM = """
import json, sys
from prefline.provenance import workflow

makers, paths = {}, set()
overlays = json.load(sys.stdin)
for name, overlay in overlays.items():
    with workflow.dag(overlay, forceall=True) as dag:
        makers[name] = list(dag.workflow.rules)
        paths |= {str(path) for job in dag.jobs for path in job.output}
print(json.dumps({
    name: {path: [rule.name for rule in rules if rule.is_producer(path)] for path in sorted(paths)}
    for name, rules in makers.items()
}))
"""


@pytest.fixture(scope="module")
def makers(tmp_path_factory):
    """{overlay: {path: rules}} of PROGRAM."""
    folder = tmp_path_factory.mktemp("makers")
    for name in (
        "Snakefile",
        "config.yaml",
        "rules",
        "scripts",
        "prefline",
        "data",
        "envs",
        "profiles",
        "recipes",
    ):
        (folder / name).symlink_to(ROOT / name)
    model_directory(folder / "model")
    process = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        input=json.dumps(OVERLAYS),
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 0, process.stderr[-3000:]
    return json.loads(process.stdout)


@pytest.mark.parametrize("overlay", OVERLAYS)
@pytest.mark.slow
def test_no_two_rules_can_make_a_file(makers, overlay):
    assert len(makers[overlay]) > 100
    assert {path: rules for path, rules in makers[overlay].items() if len(rules) > 1} == {}


def test_the_config_decides_which_rule_it_is(makers):
    sft, pairs = "results/models/sft", "results/samples/sft/preferences.parquet"
    assert {name: (paths[sft], paths[pairs]) for name, paths in makers.items()} == {
        "default": (["train_sft"], ["build_preferences"]),
        "finished start policy": (["fetch_model"], ["build_preferences"]),
        "all finished": (["fetch_model"], ["build_preferences"]),
        "given pairs": (["train_sft"], ["import_preferences"]),
        "adapters": (["merge_adapter"], ["build_preferences"]),
        "finished although adapters are set": (["fetch_model"], ["build_preferences"]),
    }


def test_no_order_of_rules_decides():
    assert not [path for path in ROOT.glob("rules/**/*.smk") if "ruleorder" in path.read_text()]


# One typo for each kind of path; tests/prefline/config/test_typed_paths.py has all keys and typos.
JUDGED = "endpoints: {own: {kind: openai, model: m, urls: ['http://localhost/v1']}}\n"
REWARD = "lowest: 1, highest: 9, max_tokens: 9, weight: 1, normalize: none"
RATED = "rewards: {asked: {kind: judge, endpoint: own, rubric: mine/empty.txt, " + REWARD + "}}"
COUNTED = "{own: {kind: function, function: 'mine/own.py:scor', arguments: {}, weight: 1, normalize: none}}"
JUDGE = "mt_bench: {judge: llm, judges: {llm: {endpoint: own, max_tokens: 9}}, judge_prompts: '~/a.jsonl'}"
TYPOS = {
    "a model that is missing": (
        "models: {sft: {source: mine/my_model}}",
        "models.sft.source: there is no dir",
    ),
    "a model in another case": ("models: {sft: {source: mine/Model}}", "did you mean mine/model?"),
    "a model without weights": ("models: {sft: {source: data/policy}}", "data/policy has no weights"),
    "an empty model": ("models: {reward_model: {source: mine/empty}}", "mine/empty has no config.json"),
    "weights that Git LFS left": (
        "models: {sft: {source: mine/lfs}}\ntrain: {learning_rate: 1e-4}",
        "is a pointer of",
    ),
    "a name of the hub": ("models: {sft: {source: Qwen/Qwen3-8B}}", "or write hub:Qwen/Qwen3-8B@COMMIT"),
    "a hub without a commit": ("models: {sft: {source: 'hub:Qwen/Qwen3-8B'}}", "or hub:ID@COMMIT"),
    "another name of the model": ("models: {stf: {source: mine/model}}", "models.stf is not used"),
    "pairs that are missing": (
        "prompts: {preferences: {use: true, source: mine/pairs.jsonl}}\nruns: {rebel: null}",
        "prompts.preferences.source: there is no file mine/pairs.jsonl ",
    ),
    "prompts with another ending": (
        "prompts: {source: data/world/prompts.json}",
        "did you mean data/world/prompts.jsonl?",
    ),
    "a file in place of a folder": ("models: {base: {source: README.md}}", "README.md is not a directory"),
    "a folder in place of a file": ("mt_bench: {questions: data/mt_bench}", "data/mt_bench is not a file"),
    "a broken link": ("mt_bench: {references: mine/link.jsonl}", "mine/link.jsonl is a link to gone"),
    "an empty rubric": (JUDGED + RATED, "rewards.asked.rubric: mine/empty.txt is empty"),
    "another file as a rubric": (
        JUDGED + RATED.replace("mine/empty.txt", "README.md"),
        "README.md: the rubric has no {prompt}",
    ),
    "a function that the file lacks": (f"rewards: {COUNTED}", "did you mean 'score'?"),
    "a home folder": (JUDGED + JUDGE, "mt_bench.judge_prompts: there is no file ~/a.jsonl"),
    "a blank at the end": (
        "vibe_check: {prompts: 'data/world/vibe_check.jsonl '}",
        "did you mean data/world/vibe",
    ),
}


@pytest.fixture(params=["project", "finished"])
def clone(request, tmp_path):
    """A new or a finished project, with files of a user in `mine`."""
    folder = shutil.copytree(request.getfixturevalue(request.param), tmp_path / "copy", symlinks=True)
    model_directory(folder / "mine/model")
    model_directory(folder / "mine/lfs")
    (folder / "mine/lfs/model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\n")
    (folder / "mine/empty").mkdir()
    (folder / "mine/empty.txt").touch()
    (folder / "mine/link.jsonl").symlink_to("gone")
    (folder / "mine/own.py").write_text("def score(messages, completion, reference):\n    return 1.0\n")
    return folder


@pytest.mark.slow
def test_a_typo_in_a_path_is_one_sentence_in_a_new_and_in_a_finished_project(clone):
    for name, (overlay, message) in TYPOS.items():
        (clone / "mine.yaml").write_text(overlay)
        process = snakemake(clone, "-n", "results/winrate.png", *QUICK, "mine.yaml", check=False)
        said = process.stdout + process.stderr
        assert process.returncode == 1, name
        assert message in said and "Traceback" not in said, said
        assert "Nothing to be done" not in said and "Job stats" not in said, name


@pytest.mark.slow
def test_a_missing_file_of_a_benchmark_is_one_sentence_once_it_is_needed(project):
    section = "{kind: alpaca_eval_annotations, annotations: mine.jsonl, regression_data: null}"
    (project / "mine.yaml").write_text(f"benchmarks: {{own: {section}}}")
    snakemake(project, "results/winrate.png", "--configfile", "mine.yaml", "-n")
    process = snakemake(
        project, "results/benchmarks/benchmarks.csv", "--configfile", "mine.yaml", "-n", check=False
    )
    assert process.returncode == 1
    assert (
        "config: benchmarks.own.annotations: there is no file mine.jsonl" in process.stdout + process.stderr
    )
