# Validate the config, constrain wildcards, and define functions for all rules; functions/ has those by
# subject.

import json
import sys
import time
from pathlib import Path
from types import SimpleNamespace


include: "functions/start.smk"
include: "functions/params.smk"


from prefline.config import endpoints, judges, named_files
from prefline.config import loading as configuration
from prefline.config.functions import file_of
from prefline.data import prompts
from prefline.config.section import flags
from prefline.errors import InputError
from prefline.provenance import imports, plan
from prefline.provenance.hashes import Hashes
from prefline.text.templates import has_clock
from prefline.training import losses
from prefline.data.sources import data_files, local_files, members, parse_url

STARTED = time.time()
RULES_HASH = plan.rules_hash(workflow.basedir)

try:
    if PLAN:
        plan.check_rules(PLAN["rules"], RULES_HASH)
        config = PLAN["config"]
    else:
        config = configuration.load(config, FILES, workflow.config_settings.config)
        named_files.check(named_files.used(config))
    CODE = PLAN["code"] if PLAN else plan.copy_code()
    OWN_CODE = PLAN["own_code"] if PLAN else plan.hashes(named_files.own_code(config), CODE)
except InputError as error:
    raise Refusal(str(error))

CODE_READ = {}  # by code_of; no file of CODE changes
PLANNED_CONFIG = {**config}  # with `machine` and `sweeps`
shell.prefix(plan.shell_prefix(CODE, OWN_CODE))
# Not in the config, so that no params of a job have it (rules/machine.smk).
MACHINE_SETTINGS = config.pop("machine")
SWEEPS = config.pop("sweeps")

HASHES = Hashes(".snakemake/prefline_hashes.json")


def refuse(sentence):
    """End Snakemake with a sentence, from an input function: of other exceptions there it shows tracebacks."""
    raise SystemExit(str(sentence))


def code_of(script):
    """Return a hash of a script and the modules that it imports, without comments: an edit of these runs nothing again."""
    script = imports.script(script)
    return imports.param(script, imports.code_hash(script, CODE, CODE_READ))


def own_code_of(files):
    """Return the user's files of code and their hashes, with the modules that they import, as params."""
    return [imports.param(file, OWN_CODE[file]) for file in files]


def per_attempt(amount):
    """Return a resource that grows by `amount` with each attempt at a job."""
    return lambda wildcards, attempt: amount * attempt


def section(path, *keys):
    """Return a section of the config by its dotted path, or some of its keys; scripts take it by section.add."""
    found = config
    for name in path.split("."):
        found = found[name]
    return {key: found[key] for key in keys or found}


def of_kind(sections, *kinds):
    """Return the names of `sections` of some kinds as a pattern; it matches nothing if there are none."""
    return "|".join(name for name in sections if sections[name]["kind"] in kinds) or "(?!)"


def contents_of(*sources):
    """Return a hash of local files' contents, and the pinned names of data on the hub.

    Data is an `ancient` input whose content is a param: a checkout that changes it may well leave it older
    than what was made from the data before.
    """
    fetched = [source for source in sources if source is not None and parse_url(source)]
    known = HASHES.together(local_files(*sources))
    HASHES.save()  # at once: a dry run ends without a hook
    return " ".join([f"data {known}", *fetched])


def shards(split):
    """Return the names of the prompt shards of a split: as many as hold the prompts that the config asks for."""
    number = config["prompts"]["num_prompts" if split == "train" else "num_test_prompts"]
    return prompts.shards({split: -(-number // config["prompts"]["shard_size"])})


def number_of_shards():
    """Return the number of prompt shards of each split, for scripts that read them all."""
    return {split: len(shards(split)) for split in ("test", "train")}


ALL_SHARDS = shards("test") + shards("train")


include: "functions/names.smk"
include: "functions/experiments.smk"
include: "functions/engines.smk"
include: "functions/models.smk"
include: "functions/policies.smk"
include: "functions/rewards.smk"
include: "functions/mt_bench.smk"
include: "functions/benchmarks.smk"
include: "functions/publish.smk"
include: "functions/machine.smk"
include: "functions/disk.smk"
include: "functions/trials.smk"
include: "functions/checks.smk"


wildcard_constraints:
    policy="|".join(POLICIES),
    reference="|".join(POLICIES),
    run="|".join(RUNS) or "(?!)",
    iteration=r"[1-9]\d*",
    model="|".join(config["models"]),
    reward="|".join(REWARDS) or "(?!)",
    shard=r"(train|test)-\d{5}",
    part=r"\d{4}",
    match="|".join([*MATCHES, *SINGLE]),
