# Validation of the config, wildcard constraints, and what all rules share; by subject in functions/.

import json
import sys
from pathlib import Path
from types import SimpleNamespace

sys.path.insert(0, str(Path(workflow.basedir)))

from prefline.config import endpoints
from prefline.config import judges
from prefline.config import loading as configuration
from prefline.config import named_files
from prefline.config.functions import file_of
from prefline.data import prompts
from prefline.config.section import flags
from prefline.errors import InputError
from prefline.provenance.hashes import Hashes
from prefline.provenance import imports
from prefline.training import losses
from prefline.data.sources import local_files, members, parse_url

try:
    config = configuration.load(config, workflow.configfiles, workflow.config_settings.config)
    named_files.check(named_files.used(config))
except InputError as error:
    raise WorkflowError(str(error))

# Threads that spin while they wait make jobs that share cores several times slower.
shell.prefix("export OMP_WAIT_POLICY=passive; ")

HASHES = Hashes(".snakemake/prefline_hashes.json")

START = "sft"
RUNS = config["runs"]
REWARDS = config["rewards"]
PROMPT_SOURCES = prompts.sources_of(config["prompts"])
GIVEN_PAIRS = prompts.given_pairs(config["prompts"])
POLICIES = [START] + [f"{run}-{t}" for run in RUNS for t in range(1, RUNS[run]["iterations"] + 1)]
TRAINED = POLICIES[1:]
# Whose pairs train a policy, and whose completions are ranked: a preference dataset stands in for the start's.
RUNS_ON_PAIRS = [run for run in RUNS if configuration.method_of(config, run) in ("preference", "kto")]
DATA_POLICIES = [START] if RUNS_ON_PAIRS else []
DATA_POLICIES += [f"{run}-{t}" for run in RUNS_ON_PAIRS for t in range(1, RUNS[run]["iterations"])]
RANKED = [name for name in DATA_POLICIES if name != START or not GIVEN_PAIRS]


def code_of(script):
    """What a script and the modules that it imports do, as a hash: a comment runs no rule again."""
    return imports.code_params(imports.script(script))[0]


def per_attempt(amount):
    """A resource of which each attempt at a job gets `amount` more: what fails for want of it may yet fit."""
    return lambda wildcards, attempt: amount * attempt


def section(path, *keys):
    """Return a section of the config by its dotted path, or some of its keys; scripts take it by section.add."""
    found = config
    for name in path.split("."):
        found = found[name]
    return {key: found[key] for key in keys or found}


def of_kind(sections, *kinds):
    """The names of the `sections` of some kinds, as a pattern; one that matches nothing if there are none."""
    return "|".join(name for name in sections if sections[name]["kind"] in kinds) or "(?!)"


def contents_of(*sources):
    """What local files hold, as a hash; for data on the hub the name says it.

    Data is an `ancient` input whose content is a param: a checkout that changes it may well leave it older
    than what was made from the data before.
    """
    fetched = [source for source in sources if source is not None and parse_url(source)]
    return " ".join([f"data {HASHES.together(local_files(*sources))}", *fetched])


def shards(split):
    """The names of the prompt shards of a split: as many as hold the prompts that the config asks for."""
    number = config["prompts"]["num_prompts" if split == "train" else "num_test_prompts"]
    return [f"{split}-{shard:05d}" for shard in range(-(-number // config["prompts"]["shard_size"]))]


ALL_SHARDS = shards("test") + shards("train")


include: "functions/engines.smk"
include: "functions/models.smk"
include: "functions/policies.smk"
include: "functions/rewards.smk"
include: "functions/mt_bench.smk"
include: "functions/benchmarks.smk"


wildcard_constraints:
    policy="|".join(POLICIES),
    reference="|".join(POLICIES),
    run="|".join(RUNS),
    iteration=r"[1-9]\d*",
    model="|".join(config["models"]),
    reward="|".join(REWARDS),
    shard=r"(train|test)-\d{5}",
    part=r"\d{4}",
    match="|".join([*MATCHES, *SINGLE]),
