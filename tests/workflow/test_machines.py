"""Machines add up: each rule gets what its models need on each of machines/, and what is set counts.

Nothing is run: Snakemake's plans tell what jobs would get.
"""

import functools
import re
import shutil
import sys

import pytest
import yaml
from conftest import ROOT, copy_project, snakemake
from snakemake.jobs import Job

sys.path.insert(0, str(ROOT / "tests/helpers"))
import large_models

MACHINES = sorted(path.stem for path in (ROOT / "machines").glob("*.yaml"))
LARGE = ["tests/workflow/large.yaml"]
TRAINED = [*LARGE, "tests/workflow/large_trained.yaml"]
GB = 10**9
# Shapes of a policy (all parameters trained) and a judge that each machine can hold; bytes of their weights.
HELD = {
    "24gb": (large_models.SMALL, large_models.QWEN_3B, 1.2 * GB, 6 * GB),
    "80gb": (large_models.QWEN_15B, large_models.QWEN_32B, 3 * GB, 65 * GB),
    "8x80gb": (large_models.LLAMA_8B, large_models.QWEN_72B, 16 * GB, 145 * GB),
    "example-site": (large_models.QWEN_3B, large_models.QWEN_32B, 6 * GB, 65 * GB),
}


def write_models(directory, policy, judge):
    """Write the models that large.yaml names, of these shapes."""
    for name, shape in (
        ("policy", policy),
        ("reward", policy),
        ("pair", large_models.SMALL),
        ("judge", judge),
    ):
        shutil.rmtree(directory / "big" / name, ignore_errors=True)
        large_models.write(directory / "big" / name, shape)


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """The project's files, nothing made yet."""
    directory = copy_project(tmp_path_factory.mktemp("project"))
    write_models(directory, large_models.LLAMA_8B, large_models.QWEN_72B)
    (directory / "big/rubric.txt").write_text("Rate {completion} of {prompt}: [[1]]")
    for name in ("problems", "rewards"):
        (directory / f"big/{name}.jsonl").write_text("{}\n")
    return directory


@pytest.fixture(autouse=True)
def eight_gpus(monkeypatch):
    """A pretended machine whose driver does not tell what its eight GPUs hold."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", ",".join(map(str, range(8))))
    monkeypatch.setattr(Job, "is_local", Job.is_local)  # which the workflow may change in this process


def plan(project, files, *arguments):
    """Return [(rule, {wildcard: value}, {resource: value})] of the jobs that Snakemake would run."""
    said = snakemake(project, "-n", *arguments, "--configfile", *files).stdout
    found = []
    for rule, lines in re.findall(r"^(?:local)?rule (\w+):\n((?:    .*\n)*)", said, re.M):
        fields = dict(line.strip().split(": ", 1) for line in lines.splitlines() if ": " in line)
        pairs = (
            dict(re.findall(r"(\w+)=([^,]*)", fields.get(key, ""))) for key in ("wildcards", "resources")
        )
        found.append((rule, *pairs))
    return found


def of_rule(jobs, rule):
    """Return the resources of the first job of a rule."""
    return next(resources for name, _, resources in jobs if name == rule)


@functools.cache
def gpu_rules():
    """Return the names of all rules that may take a GPU, as the workflow itself has them."""
    from prefline.provenance import workflow

    with workflow.dag() as dag:
        rules = list(dag.workflow.rules)
    return {rule.name for rule in rules if "gpu" in rule.resources and rule.resources["gpu"].raw != 0}


@pytest.mark.slow
def test_every_rule_with_a_gpu_gets_enough_on_every_machine(project):
    covered = {}
    for machine in MACHINES:
        given = [f"machines/{machine}.yaml"]
        section = yaml.safe_load((project / given[0]).read_text())["machine"]
        gpus, card = section["gpus"], section["gpu_memory"]
        covered[machine] = set()
        _, judge, of_policy, of_judge = HELD[machine]
        # KTO holds two models and all rows of a step, PPO four.
        step = {run: {"global_batch_size": max(2, gpus)} for run in ("kto", "kto_adapters")}
        (project / "step.yaml").write_text(yaml.safe_dump({"runs": step}))
        smaller = large_models.TINY if card == 24 else large_models.SMALL
        tries = (([*LARGE, "step.yaml"], HELD[machine][0], of_policy), (TRAINED, smaller, 0.2 * GB))
        for files, policy, weights in tries:
            write_models(project, policy, judge)
            weights_of = {"policy": weights, "judge": of_judge}
            for rule, wildcards, got in plan(project, [*files, *given]):
                if int(got.get("gpu", 0)) == 0:
                    continue
                covered[machine].add(rule)
                where = (machine, rule, wildcards, got)
                count, memory = int(got["gpu"]), int(got["mem_mb"])
                assert 1 <= count <= gpus, where
                assert memory <= section.get("memory", 10**6) * 1000, where
                # vLLM reads weights file by file; here the files are short.
                light = wildcards.get("reward") == "pair" or "tensor_parallel_size" in got
                weight = 3_000 if light else 1000 * weights_of["policy"] / GB
                assert memory > (0 if rule == "check_device" else weight), where  # which reads no model
                if "tensor_parallel_size" in got:
                    judged = rule in ("ask_judge", "rate_completions")
                    weights = weights_of["judge" if judged else "policy"]
                    assert int(got["tensor_parallel_size"]) == count, where
                    assert count * card * GB > weights or count == gpus, where
                    assert count == 1 or count / 2 * card * GB < 1.5 * weights, where
                if "gradient_checkpointing" in got:
                    # All parameters take eight times the bytes of weights in bfloat16, and activations.
                    whole = rule not in ("train_adapter", "train_kto_adapter", "train_online_adapter")
                    assert not whole or count * card * GB > 8 * weights_of["policy"], where
                if rule == "merge_adapter":
                    assert memory > 1500 * weights_of["policy"] / GB, where
    write_models(project, large_models.LLAMA_8B, large_models.QWEN_72B)
    assert covered == dict.fromkeys(MACHINES, gpu_rules())


def refused(project, gpus, memory, files):
    """Return {rule: sentence} of the jobs that a machine of this size refuses when the plan is made."""
    machine = f"machine={{gpus: {gpus}, gpu_memory: {memory}}}"
    process = snakemake(project, "-n", "--config", machine, "--configfile", *files, check=False)
    said = process.stdout + process.stderr
    assert process.returncode == 1 and "Traceback" not in said, said[-2000:]
    found = re.findall(r"^(?:Error: )?([\w, ]+?) needs? (about [^\n]*)", said, re.M)
    assert found, said[-2000:]
    return {rule: sentence for rules, sentence in found for rule in re.split(", | and ", rules)}


@pytest.mark.slow
def test_every_rule_with_a_gpu_is_refused_on_a_card_that_is_too_small(project):
    found = {**refused(project, 1, 4, LARGE), **refused(project, 1, 4, TRAINED)}
    small = {"compare_completions", "check_device"}  # of the model `pair`, and of none
    assert found.keys() | small == gpu_rules()
    assert all("the card has 4" in sentence for sentence in found.values())


@pytest.mark.slow
def test_a_judge_that_no_gpu_holds_is_refused_with_what_would(project):
    (project / "small.yaml").write_text("runs: {kto: null, kto_adapters: null}")
    write_models(project, large_models.SMALL, large_models.QWEN_72B)
    found = refused(project, 1, 24, [*LARGE, "small.yaml"])
    assert found.keys() == {"ask_judge", "rate_completions"}
    assert re.match(r"about 15\d GB for the model judge, the card has 24, of which", found["ask_judge"])
    assert found["ask_judge"].endswith("; take 16 such GPUs, a smaller model or a larger card")
    fewer = "machine: {rules: {ask_judge: {gpu: 1}}}"
    (project / "small.yaml").write_text("runs: {kto: null, kto_adapters: null}\n" + fewer)
    found = refused(project, 8, 80, [*LARGE, "small.yaml"])
    assert found.keys() == {"ask_judge"} and "; set gpu: 4, which needs about 4" in found["ask_judge"]
    write_models(project, large_models.LLAMA_8B, large_models.QWEN_72B)


@pytest.mark.slow
def test_the_command_line_replaces_one_value_alone(project):
    files = [*LARGE, "machines/8x80gb.yaml"]
    before = of_rule(plan(project, files), "train_adapter")
    one = plan(project, files, "--set-resources", "train_adapter:save_steps=7")
    assert of_rule(one, "train_adapter") == before | {"save_steps": "7"}
    assert before["per_device_train_batch_size"] != "1" and int(before["mem_mb"]) > 16_000
    rows = plan(project, files, "--set-resources", "train_adapter:per_device_train_batch_size=1")
    kept = ("gradient_checkpointing", "mem_mb", "gpu", "runtime")
    assert {name: of_rule(rows, "train_adapter")[name] for name in kept} == {
        name: before[name] for name in kept
    }


def test_files_add_up_key_by_key_and_the_last_counts(project):
    first = {"machine": {"gpu_memory": 141, "rules": {"train_adapter": {"runtime": 11, "save_steps": 5}}}}
    second = {"machine": {"gpus": 6, "rules": {"train_adapter": {"runtime": 22}, "train_policy": {"gpu": 2}}}}
    for name, overlay in (("first", first), ("second", second)):
        (project / f"{name}.yaml").write_text(yaml.safe_dump(overlay))
    files = [*LARGE, "first.yaml", "second.yaml"]
    jobs = plan(project, files)
    adapter = of_rule(jobs, "train_adapter")
    assert (adapter["runtime"], adapter["save_steps"]) == ("22", "5")
    assert of_rule(jobs, "train_policy")["gpu"] == "2"
    assert of_rule(jobs, "ask_judge")["tensor_parallel_size"] == "2"
    said = ["--config", "machine={rules: {train_adapter: {runtime: 33}}}"]
    adapter = of_rule(plan(project, files, *said), "train_adapter")
    assert (adapter["runtime"], adapter["save_steps"]) == ("33", "5")


@pytest.mark.slow
def test_a_model_of_the_hub_is_planned_before_its_size_is_known(project):
    hub = {"models": {"sft": {"source": f"hub:some/model@{'0' * 40}"}}}
    (project / "hub.yaml").write_text(yaml.safe_dump(hub))
    jobs = plan(project, [*LARGE, "machines/8x80gb.yaml", "hub.yaml"])
    unknown = of_rule(jobs, "train_policy")
    assert unknown["gpu"] == unknown["mem_mb"] == unknown["per_device_train_batch_size"] == "<TBD>"
    assert of_rule(jobs, "ask_judge")["gpu"] == "4", "this model is here"
    set_by_hand = plan(
        project, [*LARGE, "machines/8x80gb.yaml", "hub.yaml"], "--set-resources", "train_policy:gpu=8"
    )
    assert of_rule(set_by_hand, "train_policy")["gpu"] == "8"


def test_an_edit_of_the_machine_changes_no_job_but_the_check_of_its_cards(project, monkeypatch):
    monkeypatch.chdir(project)
    from prefline.provenance import workflow

    machine = yaml.safe_load((project / "machines/example-site.yaml").read_text())
    changed = workflow.changed(workflow.jobs(), workflow.jobs(machine))
    assert set(changed) == {"results/checks/device/gpu.json"}


@pytest.mark.parametrize(
    ("machine", "sentence"),
    [
        ("{rules: {train_polcy: {gpu: 8}}}", "machine.rules has 'train_polcy', which is no rule; did you"),
        ("{rules: {train_policy: {batch_tokens: 8}}}", "machine.rules.train_policy.batch_tokens: the rule"),
        ("{rules: {train_policy: {gpus: 8}}}", "machine.rules.train_policy has no key 'gpus'; did you"),
        ("{gpu_memory: 0}", "config: machine.gpu_memory: 0"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_sentence(project, machine, sentence):
    said = snakemake(project, "-n", "--config", f"machine={machine}", check=False)
    told = said.stdout + said.stderr
    assert said.returncode == 1 and sentence in told and "Traceback" not in told


def test_jobs_that_need_the_internet_run_where_snakemake_does(project, monkeypatch):
    monkeypatch.chdir(project)
    from prefline.provenance import workflow

    hosted = {"kind": "openai", "urls": ["https://judge.example/v1"], "model": "judge"}
    overlay = {
        "models": {"sft": {"source": f"hub:some/model@{'0' * 40}"}, "judge": {"source": "big/judge"}},
        "train": {"learning_rate": 1e-5},
        "endpoints": {"far": hosted, "near": {"kind": "vllm", "model": "judge"}},
        "mt_bench": {
            "judge": ["far", "near"],
            "judges": {name: {"endpoint": name, "max_tokens": 8} for name in ("far", "near")},
        },
        "prompts": {"source": f"hub:some/prompts@{'0' * 40}#train"},
    }

    def local(internet):
        with workflow.dag({**overlay, "machine": {"internet": internet}}) as dag:
            monkeypatch.setattr(type(dag.workflow), "local_exec", False)
            return {
                (job.rule.name, *map(str, job.wildcards)) for job in dag.jobs if job.is_local and job.output
            }

    assert local("jobs") == set()
    found = local("login_node")
    names = {"fetch_model", "check_data", "check_model", "prepare_prompts", "check_endpoint", "ask_judge"}
    assert {name for name, *_ in found} == names
    assert ("fetch_model", "sft") in found and ("fetch_model", "judge") not in found
    assert ("check_data", "prompts") in found and ("check_data", "vibe_check") not in found
    assert {judge for name, *wildcards in found for judge in wildcards[:1] if name == "ask_judge"} == {"far"}
