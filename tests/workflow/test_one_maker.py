"""Each file has one rule that can make it, whatever the config: so no other rule makes it in silence."""

import json
import shutil
import subprocess
import sys

import pytest
from conftest import QUICK, ROOT, snakemake

PEFT = {"r": 4, "lora_alpha": 8, "lora_dropout": 0.0, "target_modules": "all-linear"}
OVERLAYS = {
    "default": {},
    "finished start policy": {"models": {"sft": {"source": "data/policy"}}},
    "all finished": {"models": {name: {"source": "data/policy"} for name in ("base", "sft", "reward_model")}},
    "given pairs": {"prompts": {"preferences": {"use": True}}, "runs": {"rebel": None}},
    "adapters": {
        "models": {name: {"training": {"peft": PEFT}} for name in ("base", "sft", "reward_model")},
        "train": {"peft": PEFT},
    },
    "finished although adapters are set": {
        "models": {"sft": {"source": "data/policy", "training": {"peft": PEFT}}},
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


MISSING = [
    (
        "models: {sft: {source: mine/my_model}}",
        "config: models.sft.source: there is no directory mine/my_model ",
    ),
    (
        "prompts: {preferences: {use: true, source: mine/pairs.jsonl}}\nruns: {rebel: null}",
        "config: prompts.preferences.source: there is no file mine/pairs.jsonl ",
    ),
]


@pytest.mark.parametrize(("overlay", "message"), MISSING, ids=["model", "pairs"])
@pytest.mark.parametrize("state", ["project", "finished"])
def test_a_missing_path_is_one_sentence_in_a_new_and_in_a_finished_project(
    request, tmp_path, state, overlay, message
):
    folder = shutil.copytree(request.getfixturevalue(state), tmp_path / "copy", symlinks=True)
    (folder / "mine").mkdir()
    (folder / "mine.yaml").write_text(overlay)
    process = snakemake(folder, "results/winrate.png", *QUICK, "mine.yaml", check=False)
    said = process.stdout + process.stderr
    assert process.returncode == 1
    assert message in said and "Traceback" not in said
    assert "Nothing to be done" not in said


def test_a_missing_file_of_a_benchmark_is_one_sentence_once_it_is_needed(project):
    section = "{kind: alpaca_eval_annotations, annotations: mine.jsonl, regression_data: null}"
    (project / "mine.yaml").write_text(f"benchmarks: {{own: {section}}}")
    snakemake(project, "results/winrate.png", "--configfile", "mine.yaml", "-n")
    process = snakemake(project, "results/benchmarks.csv", "--configfile", "mine.yaml", "-n", check=False)
    assert process.returncode == 1
    assert (
        "config: benchmarks.own.annotations: there is no file mine.jsonl" in process.stdout + process.stderr
    )
