"""Snakemake and DVC agree: in the working copy, in a clone, on another branch, with every kind of link."""

import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from conftest import ROOT, copy_project
from snakemake.utils import update_config

slow = pytest.mark.slow
# What reads the win rates.
AFTER_WINRATE = ("plot_winrate", "plot_drift", "write_model_card", "write_report")
STAGES = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
EDITED = 300  # a number of bootstrap samples that is not quick.yaml's


ENVIRONMENT = {
    **os.environ,
    "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    **{f"GIT_{who}_{what}": f"t@{what}" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")},
}


def run(directory, *command, env=None, check=True):
    """What a command in `directory` prints, its errors included; it must succeed, unless `check` is False."""
    process = subprocess.run(
        command,
        cwd=directory,
        env={**ENVIRONMENT, **(env or {})},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert not check or process.returncode == 0, process.stdout[-5000:]
    return process.stdout


def git(directory, *arguments):
    return run(directory, "git", *arguments)


def commit(directory, message):
    git(directory, "add", "-A")
    git(directory, "commit", "-qm", message)


def edit(directory, **values):
    """Lay `values` over config.yaml."""
    config = yaml.safe_load((directory / "config.yaml").read_text())
    update_config(config, values)
    (directory / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))


def jobs_in(said):
    """Rules of the jobs that Snakemake says it runs."""
    return re.findall(r"^(?:local)?rule (\w+):", said, re.M)


def nothing_to_do(directory):
    assert "Nothing to be done" in run(directory, "snakemake", "-n")
    assert "up to date" in run(directory, "dvc", "status")


def bootstrap_samples(directory):
    return json.loads((directory / "results/winrate.json").read_text())["bootstrap_samples"]


@pytest.fixture(scope="session")
def tracked(finished, one_at_a_time):
    """A repository in which everything is made, committed and pushed to ../store. Copy it with `of`."""
    with one_at_a_time("tracked") as directory:
        if not (directory / "ready").exists():
            shutil.copytree(finished, directory, symlinks=True)
            edit(directory, **yaml.safe_load((directory / "tests/workflow/quick.yaml").read_text()))
            git(directory, "init", "-qb", "main")
            for key, value in (("user.name", "t"), ("user.email", "t@example.org")):  # DVC reads no variables
                git(directory, "config", key, value)
            commit(directory, "start")
            run(directory, "dvc", "commit", "-f")
            run(directory, "dvc", "remote", "add", "-d", "store", f"{directory}.store")
            commit(directory, "locked")
            run(directory, "dvc", "push")
            (directory / "ready").touch()
    return directory


@pytest.fixture
def copy(tracked, tmp_path):
    shutil.copytree(tracked, tmp_path / "copy", symlinks=True)
    (tmp_path / "copy/ready").unlink()
    return tmp_path / "copy"


@pytest.fixture
def clone(tracked, tmp_path):
    """A function that clones, pulls with a kind of link, and gives the clone."""

    def make(link="copy"):
        git(tmp_path, "clone", "-q", str(tracked), "clone")
        run(tmp_path / "clone", "dvc", "config", "--local", "cache.type", link)
        run(tmp_path / "clone", "dvc", "pull")
        return tmp_path / "clone"

    return make


@pytest.mark.long
def test_the_table_of_reruns_is_made_from_the_workflow(tmp_path):
    run(ROOT, sys.executable, "-m", "tools.write_reruns", "--out", str(tmp_path / "reruns.md"))
    made, kept = (tmp_path / "reruns.md").read_text(), (ROOT / "docs/reruns.md").read_text()
    assert made == kept, "docs/reruns.md is old: make reruns"


@pytest.mark.long
@pytest.mark.timeout(1200)
def test_every_value_of_the_config_under_both_engines(copy):
    """What Snakemake plans is what the table says, and DVC would run every stage."""
    lines = run(copy, sys.executable, "tests/workflow/mutate.py").splitlines()
    seen = [json.loads(line) for line in lines if line.startswith("{")]
    assert seen[0] == {"value": "", "predicted": [], "snakemake": [], "dvc": []}
    assert len(seen) > 110
    assert [one["value"] for one in seen if one["predicted"] != one["snakemake"]] == []
    assert [one["value"] for one in seen[1:] if one["dvc"] != sorted(STAGES)] == []


@pytest.mark.long
@pytest.mark.timeout(1200)
def test_repro_from_nothing_and_again(finished, tmp_path):
    """From nothing but the journals, to save time. An edit runs its stages; there and back trains twice."""
    copy = copy_project(tmp_path / "copy")
    edit(copy, **yaml.safe_load((copy / "tests/workflow/quick.yaml").read_text()))
    shutil.copytree(finished / "work", copy / "work")
    git(copy, "init", "-q")
    commit(copy, "start")
    assert len(jobs_in(run(copy, "dvc", "repro"))) > 40
    nothing_to_do(copy)
    assert "Running stage" not in run(copy, "dvc", "repro")
    before = (copy / "results/models/dpo-1.json").read_bytes()

    edit(copy, runs={"dpo": {"beta": 0.3}})
    said = run(copy, "dvc", "repro")
    assert re.findall(r"Running stage '(.*)'", said) == list(STAGES)
    assert "nothing to train" not in said
    assert (copy / "results/models/dpo-1.json").read_bytes() != before
    nothing_to_do(copy)
    edit(copy, runs={"dpo": {"beta": 0.1}})
    assert "nothing to train" in run(copy, "dvc", "repro")
    assert (copy / "results/models/dpo-1.json").read_bytes() == before


@pytest.mark.long
@pytest.mark.timeout(600)
def test_repro_repeats_nothing_that_snakemake_did(copy):
    edit(copy, mt_bench={"bootstrap_samples": EDITED})
    assert set(jobs_in(run(copy, "snakemake"))) == {"compute_winrate", *AFTER_WINRATE, "all"}
    assert set(jobs_in(run(copy, "dvc", "repro"))) <= set(STAGES)
    assert bootstrap_samples(copy) == EDITED
    nothing_to_do(copy)


@pytest.mark.timeout(1200)  # the world that it may be the first to need counts
@pytest.mark.parametrize(
    "link",
    [
        pytest.param("copy", marks=slow),
        pytest.param("hardlink", marks=pytest.mark.long),
        pytest.param("symlink", marks=pytest.mark.long),
    ],
)
def test_a_clone_has_nothing_to_do_and_records_nothing_false(clone, link):
    """Outputs of a stage are kept when it runs: an edit in a clone must still reach them, and come back."""
    clone = clone(link)
    nothing_to_do(clone)
    edit(clone, mt_bench={"bootstrap_samples": EDITED}, vibe_check={"max_tokens": 12})
    again = ["compute_winrate", *AFTER_WINRATE, "answer_vibe_check", "write_vibe_check"]
    assert set(jobs_in(run(clone, "dvc", "repro"))) - set(STAGES) == set(again)
    assert bootstrap_samples(clone) == EDITED
    nothing_to_do(clone)
    git(clone, "checkout", "-q", "config.yaml", "dvc.lock")
    run(clone, "dvc", "checkout")
    assert bootstrap_samples(clone) != EDITED
    nothing_to_do(clone)


@slow
def test_a_fetched_model_is_not_stored_and_is_fetched_again_alone(clone):
    clone = clone()
    model = clone / "results/models/start"
    assert model.with_name("start.json").exists() and not os.path.lexists(model)
    assert jobs_in(run(clone, "snakemake", "results/models/start")) == ["fetch_model"]
    nothing_to_do(clone)
    run(clone, "dvc", "checkout", "--force")
    assert (model / "config.json").exists()
    nothing_to_do(clone)


@slow
def test_a_removed_run_is_swept_and_comes_back(clone):
    clone = clone()
    said = run(clone, "dvc", "exp", "run", "-S", "+runs.rebel=null")
    assert re.search(r"removed \d+ results .* with results/models/rebel-1, results/models/rebel-2", said)
    assert "train_policy" not in jobs_in(said)
    assert git(clone, "diff", "--name-only").split() == ["dvc.lock", "params.yaml"]
    assert not list((clone / "results").rglob("*rebel*"))
    nothing_to_do(clone)
    git(clone, "checkout", "-q", ".")
    run(clone, "dvc", "checkout")
    assert (clone / "results/models/rebel-2/model.safetensors").exists()
    nothing_to_do(clone)


@slow
def test_a_new_run_and_a_recipe_are_seen_and_data_elsewhere_is_refused(clone):
    clone = clone()
    for edited in ("runs: {hot: {beta: 0.5}}", "recipes: [recipes/six_losses.yaml]"):
        (clone / "params.yaml").write_text(edited)
        assert re.findall(r"^(\w+):", run(clone, "dvc", "status"), re.M) == list(STAGES)
    shutil.copy(clone / "data/world/vibe_check.jsonl", clone / "mine.jsonl")
    (clone / "params.yaml").write_text("vibe_check: {prompts: mine.jsonl}")
    assert "DVC would not see changes of mine.jsonl" in run(clone, "dvc", "repro", check=False)


@slow
def test_data_that_changes_in_git_is_seen_although_it_looks_old(clone):
    clone = clone()
    prompts = clone / "data/world/vibe_check.jsonl"
    prompts.write_text("".join(prompts.read_text().splitlines(keepends=True)[:-1]))
    os.utime(prompts, (0, 0))
    again = {"check_data", "check_model", "answer_vibe_check", "write_vibe_check", "write_report", "all"}
    again |= {"fetch_model"}  # DVC keeps no fetched model, and the check reads it
    assert set(jobs_in(run(clone, "snakemake", "-n"))) == again
    assert re.findall(r"^(\w+):", run(clone, "dvc", "status"), re.M) == list(STAGES)


@pytest.mark.long
def test_branches(copy):
    git(copy, "checkout", "-qb", "other")
    edit(copy, mt_bench={"bootstrap_samples": EDITED})
    run(copy, "dvc", "repro")
    commit(copy, "other")
    assert "results/metrics/dpo-1.json" in run(copy, "dvc", "metrics", "diff", "--all", "main")
    for branch, samples in (("main", 200), ("other", EDITED)):
        git(copy, "checkout", "-q", branch)
        run(copy, "dvc", "checkout")
        assert bootstrap_samples(copy) == samples
        nothing_to_do(copy)


@pytest.mark.long
@pytest.mark.timeout(600)
def test_experiments(copy):
    override = f"config.yaml:mt_bench.bootstrap_samples={EDITED}"
    run(copy, "dvc", "exp", "run", "-S", override)
    assert bootstrap_samples(copy) == EDITED
    nothing_to_do(copy)
    run(copy, "dvc", "exp", "run", "--queue", "--name", "hot", "-S", "+runs.dpo.beta=0.3")
    run(copy, "dvc", "exp", "run", "--run-all")
    run(copy, "dvc", "exp", "apply", "hot")
    assert "--beta 0.3" in (copy / "results/records/models/dpo-1.json.json").read_text()
    nothing_to_do(copy)
    plots = run(copy, "dvc", "plots", "diff", "main", "-o", "plots")
    assert "index.html" in plots
    assert "results/training/dpo-1/log.csv" in (copy / "plots/index.html").read_text().replace("\\/", "/")


@slow
def test_a_bucket_as_remote(copy, tmp_path):
    """Credentials come from the environment alone."""
    import boto3

    log = tmp_path / "server.txt"
    with open(log, "w") as said:
        server = subprocess.Popen([Path(sys.executable).parent / "moto_server", "-p", "0"], stderr=said)
    try:
        while not (found := re.search(r"http://127\S+", log.read_text())):
            assert server.poll() is None, log.read_text()
            time.sleep(0.1)
        address = found[0]
        secrets = {"AWS_ACCESS_KEY_ID": "name", "AWS_SECRET_ACCESS_KEY": "secret"}
        keys = {"aws_access_key_id": "name", "aws_secret_access_key": "secret"}
        boto3.client("s3", endpoint_url=address, region_name="us-east-1", **keys).create_bucket(
            Bucket="prefline"
        )
        run(copy, "dvc", "remote", "add", "-d", "bucket", "s3://prefline/store")
        run(copy, "dvc", "remote", "modify", "bucket", "endpointurl", address)
        commit(copy, "bucket")
        run(copy, "dvc", "push", env=secrets)
        git(tmp_path, "clone", "-q", str(copy), "clone")
        run(tmp_path / "clone", "dvc", "pull", env=secrets)
        nothing_to_do(tmp_path / "clone")
        assert "secret" not in (copy / ".dvc/config").read_text()
    finally:
        server.kill()


@pytest.mark.long
def test_one_model_is_pulled_and_talks(tracked, tmp_path):
    git(tmp_path, "clone", "-q", str(tracked), "clone")
    model = "results/models/dpo-1"
    run(tmp_path / "clone", "dvc", "pull", model, f"{model}.json", "results/records/models")
    assert sorted(os.listdir(tmp_path / "clone/results/models")) == ["dpo-1", "dpo-1.json"]
    said = run(tmp_path / "clone", sys.executable, "-m", "tools.lineage", f"{model}.json", check=False)
    assert "has no record" in said and "pull it" in said and "Traceback" not in said
    asked = ("tools.chat", model, "--max-tokens", "4")
    assert subprocess.run(
        [sys.executable, "-m", *asked], cwd=tmp_path / "clone", env=ENVIRONMENT, input=b"Hello", check=True
    )


@slow
def test_a_remote_that_is_missing_is_named(clone, tmp_path):
    git(tmp_path, "clone", "-q", str(clone()), "other")
    run(tmp_path / "other", "dvc", "remote", "modify", "store", "url", "/nowhere")
    assert "failed to pull" in run(tmp_path / "other", "dvc", "pull", check=False)


@slow
def test_a_damaged_cache_object_is_noticed(copy):
    """A checkout takes what the cache holds; the records say that it is not what was made."""
    shutil.rmtree(copy / "results/mt_bench")
    outs = yaml.safe_load((copy / "dvc.lock").read_text())["stages"]["mt_bench"]["outs"]
    md5 = next(out["md5"] for out in outs if out["path"] == "results/mt_bench")
    files = json.loads((copy / ".dvc/cache/files/md5" / md5[:2] / md5[2:]).read_text())
    md5 = next(file["md5"] for file in files if file["relpath"] == "answers/dpo-1.jsonl")
    cached = copy / ".dvc/cache/files/md5" / md5[:2] / md5[2:]
    cached.chmod(0o644)
    cached.write_text(cached.read_text().replace("a", "e", 1))
    cached.chmod(0o444)
    run(copy, "dvc", "checkout", check=False)
    said = run(copy, "snakemake", "-n", check=False)
    assert "results/mt_bench/answers/dpo-1.jsonl" in said
    assert "Nothing to be done" not in said


@pytest.mark.long
def test_two_commands_at_once(copy):
    edit(copy, mt_bench={"bootstrap_samples": 60_000})
    first = subprocess.Popen(["dvc", "repro"], cwd=copy, env=ENVIRONMENT)
    while not (copy / ".snakemake/incomplete").is_dir() or not any(
        (copy / ".snakemake/incomplete").iterdir()
    ):
        assert first.poll() is None
        time.sleep(0.1)
    assert "locked" in run(copy, "snakemake", check=False)
    assert "lock" in run(copy, "dvc", "repro", check=False)
    assert first.wait() == 0
    assert bootstrap_samples(copy) == 60_000
    nothing_to_do(copy)


@pytest.mark.long
def test_an_interrupted_repro_goes_on(copy):
    edit(copy, mt_bench={"bootstrap_samples": 60_000})
    first = subprocess.Popen(["dvc", "repro"], cwd=copy, env=ENVIRONMENT, start_new_session=True)
    while not (copy / ".snakemake/incomplete").is_dir() or not any(
        (copy / ".snakemake/incomplete").iterdir()
    ):
        assert first.poll() is None
        time.sleep(0.1)
    os.killpg(first.pid, 9)
    first.wait()
    run(copy, "dvc", "repro")
    assert bootstrap_samples(copy) == 60_000
    nothing_to_do(copy)
