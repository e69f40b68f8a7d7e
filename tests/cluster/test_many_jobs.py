"""Two hundred short jobs in Slurm's queue at once: every one runs once, and the profile hears of its end."""

from collections import Counter

import pytest

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(1800)]

NUMBER = 200
SNAKEFILE = f"""
rule all:
    input:
        expand("short/{{number}}.txt", number=range({NUMBER})),


rule short:
    output:
        "short/{{number}}.txt",
    resources:
        mem_mb=500,
        runtime=10,
    shell:
        "echo {{wildcards.number}} >>{{output}}"
"""


def test_two_hundred_jobs_at_once(slurm, project):
    (project / "short.smk").write_text(SNAKEFILE)
    slurm.snakemake(project, "--snakefile", "short.smk", "--jobs", str(NUMBER), "--keep-going")
    jobs = slurm.jobs_of(project, "short")
    assert Counter(job["JobState"] for job in jobs) == {"COMPLETED": NUMBER}
    queued = [
        sum(job["SubmitTime"] <= moment < job["EndTime"] for job in jobs)
        for moment in {job["SubmitTime"] for job in jobs}
    ]
    assert max(queued) > NUMBER / 2
    for number in range(NUMBER):
        assert (project / f"short/{number}.txt").read_text() == f"{number}\n"
