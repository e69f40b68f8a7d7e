"""Every edit of the config from which the table of reruns is made is a valid config."""

import copy
from pathlib import Path

import yaml
from snakemake.utils import update_config

from prefline.config import loading
from prefline.errors import InputError
from prefline.provenance import workflow


def test_every_edit_is_a_valid_config():
    config = yaml.safe_load(Path("config.yaml").read_text(encoding="utf-8"))
    refused = []
    for path, overlay in workflow.edits():
        edited = copy.deepcopy(config)
        update_config(edited, overlay)
        try:
            loading.load(edited)
        except InputError as error:
            refused.append((".".join(path), str(error)))
    assert refused == []
