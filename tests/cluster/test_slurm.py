"""The whole chain through `--profile slurm` on a real Slurm, by Slurm's own records of every job."""

import functools
import hashlib
import http.server
import secrets
import threading

import pytest
import yaml

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.timeout(1800),
]

ON_GPUS = {
    "check_device",
    "pretrain",
    "train_sft",
    "train_reward_model",
    "generate_completions",
    "score_completions",
    "compute_ref_logps",
    "train_policy",
    "answer_mt_bench",
}


# Keys that jobs inherit in their environment, as people export them before they start Snakemake.
SECRETS = ("HF_TOKEN", "OPENAI_API_KEY", "PREFLINE_API_KEY", "WANDB_API_KEY", "AWS_SECRET_ACCESS_KEY")
CANARY = f"canary-{secrets.token_hex(8)}"


def leaks(slurm, directory, jobs, said):
    """Where a secret can be read (list of str) by those who see the project, the queue or the screen."""
    found = [str(path) for path in directory.rglob("*") if path.is_file() and CANARY in _text(path)]
    for job in jobs:
        shown = ("show", "job", "-dd", job["JobId"]), ("write", "batch_script", job["JobId"], "-")
        found += [" ".join(words) for words in shown if CANARY in slurm.ask("scontrol", *words)]
    return found + ["the screen"] * (CANARY in said)


def _text(path):
    return path.read_bytes().decode(errors="replace")


@pytest.mark.parametrize(
    "overlay",
    [
        pytest.param([], id="default"),
        pytest.param(["--configfile", "tests/workflow/quick.yaml"], id="quick"),
    ],
)
def test_the_chain_runs_and_only_gpu_rules_hold_gpus(slurm, project, overlay):
    before = {job["JobId"] for job in slurm.jobs()}
    said = slurm.snakemake(project, "results/winrate.png", *overlay, **dict.fromkeys(SECRETS, CANARY))
    assert (project / "results/winrate.png").stat().st_size > 0

    jobs = [job for job in slurm.jobs() if job["JobId"] not in before]
    assert {job["Rule"] for job in jobs} > ON_GPUS
    for job in jobs:
        on_gpu = job["Rule"] in ON_GPUS
        assert job["JobState"] == "COMPLETED", job
        assert job["Partition"] == ("gpu" if on_gpu else "cpu"), job
        assert job.get("JOB_GRES", "(null)") == ("gpu:a100:1" if on_gpu else "(null)"), job
        assert slurm.devices(job) in ({"0", "1"} if on_gpu else {""}), job
    assert leaks(slurm, project, jobs, said) == []
    busy = [job for job in jobs if job["Rule"] in ON_GPUS]
    for job in busy:
        for other in busy:
            if job is not other and job["StartTime"] <= other["StartTime"] < job["EndTime"]:
                assert slurm.devices(job) != slurm.devices(other), (job, other)


def test_a_site_lays_its_own_settings_over_ours(slurm, project):
    """Its profile, with other partitions; its machine, with two GPUs of a kind and limits for a rule."""
    (project / "small.yaml").write_text(
        "models: {base: {source: data/policy}, sft: {training: {num_train_epochs: 0.02}}}"
    )
    site = ["--profile", "profiles/example-site", "results/models/sft", "--configfile", "small.yaml"]
    site.append("machines/example-site.yaml")
    before = {job["JobId"] for job in slurm.jobs()}
    slurm.snakemake(project, *site)
    jobs = {job["Rule"]: job for job in slurm.jobs() if job["JobId"] not in before}
    assert jobs.keys() == {"check_data", "check_device", "check_model", "fetch_model", "train_sft"}
    assert jobs["fetch_model"]["Partition"] == "main"
    training = jobs["train_sft"]
    assert (training["Partition"], training["JOB_GRES"]) == ("a100", "gpu:a100:2")
    assert slurm.devices(training) == "0,1"
    assert training["MinMemoryNode"] == "8000M" and training["TimeLimit"] == "10:00:00"
    assert training["NumCPUs"] == "4"


def test_a_job_that_needs_the_internet_runs_where_snakemake_does(slurm, project):
    """One key of the config; the nodes of most sites have no internet."""
    questions = (project / "data/mt_bench/question.jsonl").read_bytes()
    made = "results/mt_bench/data/questions.jsonl"
    serve = functools.partial(http.server.SimpleHTTPRequestHandler, directory=project / "data/mt_bench")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), serve) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}/question.jsonl"
        source = f"{address}#sha256={hashlib.sha256(questions).hexdigest()}"
        for internet, submitted in (("login_node", 0), ("jobs", 1)):
            overlay = {"mt_bench": {"questions": source}, "machine": {"internet": internet}}
            (project / "fetched.yaml").write_text(yaml.safe_dump(overlay))
            (project / made).unlink(missing_ok=True)
            before = {job["JobId"] for job in slurm.jobs()}
            slurm.snakemake(project, made, "--configfile", "fetched.yaml")
            assert (project / made).read_bytes() == questions
            assert len([job for job in slurm.jobs() if job["JobId"] not in before]) == submitted
        server.shutdown()
