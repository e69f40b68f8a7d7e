"""What an experiment cost, from Snakemake's benchmark files and Slurm's accounting."""

import pytest

from prefline.errors import InputError
from prefline.machine import costs
from tools import costs as command

HEAD = "s\tmax_rss\tcpu_time\trule_name\twildcards\tresources\n"


def write(path, seconds, rule, wildcards="{}", resources="{}", cpu="7200.0"):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(HEAD + f"{seconds}\t512.5\t{cpu}\t{rule}\t{wildcards}\t{resources}\n")


def test_hours_by_rule_and_by_run(tmp_path, capsys):
    write(tmp_path / "pretrain.tsv", 3600, "pretrain", resources="{'gres': 'gpu:a100:4', 'nodes': 2}")
    for t in (1, 2):
        wildcards = f"{{'run': 'dpo', 'iteration': '{t}'}}"
        write(tmp_path / f"dpo-{t}/train_policy.tsv", 1800, "train_policy", wildcards, "{'gpu': 2}")
    write(tmp_path / "dpo-1/plot.tsv", 1, "plot", "{'policy': 'dpo-1'}", cpu="NA")
    jobs = costs.benchmarked(tmp_path)
    by_rule = costs.totals(jobs, [], lambda job: job["rule"])
    assert list(by_rule) == ["plot", "pretrain", "train_policy", "total"]
    assert by_rule["pretrain"]["gpu_hours"] == 8
    assert (
        by_rule["train_policy"] | {"jobs": 2, "hours": 1, "cpu_hours": 4, "gpu_hours": 2}
        == by_rule["train_policy"]
    )
    assert by_rule["total"]["memory"] == 512.5 and by_rule["total"]["jobs"] == 4
    assert list(costs.totals(jobs, [], costs.run_of)) == ["dpo", "shared", "total"]
    command.main(["--logs", str(tmp_path)])
    assert "| train_policy | 2 | 1.000 | 4.000 | 2.000 | 512 |" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("resources", "number"),
    [
        ({}, 0),
        ({"gpu": 3}, 3),
        ({"gres": "gpu:2"}, 2),
        ({"gres": "gpu"}, 1),
        ({"gres": "gpu:h100:8,nvme:1", "nodes": 4}, 32),
    ],
)
def test_gpus_of_a_job(resources, number):
    assert costs.gpus(resources) == number


def test_slurm_knows_the_queue_and_what_failed(tmp_path):
    lines = [
        f"rule_generate_completions_wildcards_sft,train-00000|{tmp_path}|2026-01-01T10:00:00|2026-01-01T11:30:00"
        "|7200|14400|billing=2,cpu=2,gres/gpu=1,mem=4G,node=1|3600000",
        f"rule_generate_completions|{tmp_path}|2026-01-01T10:00:00|Unknown|0|0||",
        "rule_pretrain|/elsewhere|2026-01-01T10:00:00|2026-01-01T10:00:00|1|1||",
        f"|{tmp_path}|2026-01-01T10:00:00|2026-01-01T10:00:00|1|1||",
    ]
    found = costs.accounted("\n".join(lines), tmp_path)
    row = costs.totals([], found, lambda job: job["rule"])["generate_completions"]
    assert (row["slurm_jobs"], row["queue_hours"], row["slurm_cpu_hours"]) == (2, 1.5, 4)
    assert (row["slurm_gpu_hours"], row["energy"]) == (2, 1)


def test_files_of_another_form_are_named(tmp_path):
    (tmp_path / "old.tsv").write_text("s\tmax_rss\n1\t2\n")
    with pytest.raises(InputError, match=r"old\.tsv: names no rule"):
        costs.benchmarked(tmp_path)
    with pytest.raises(InputError, match=r"has no benchmark file .* versions under benchmarks/: name"):
        command.main(["--logs", str(tmp_path / "nothing")])
