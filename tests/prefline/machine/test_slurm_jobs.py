"""Only what a Snakemake submitted in this very folder is taken for an orphan."""

from prefline.machine import slurm_jobs


def test_jobs_of_other_folders_and_of_other_kinds_stay():
    listing = "\n".join(
        [
            "12|/data/a|rule_train_sft",
            "13|/data/a|group_shards_wildcards_x|y",
            "14|/data/a/b|rule_train_sft",
            "15|/data/a|(null)",
            "16|/data/a|my own job",
            "",
        ]
    )
    assert slurm_jobs.of_folder(listing, "/data/a") == ["12", "13"]
    assert slurm_jobs.of_folder("", "/data/a") == []
