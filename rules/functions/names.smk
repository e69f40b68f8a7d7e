# The names of the config's runs, policies and rewards, for all rules.

from prefline import policies as naming
from prefline.config import needs

START = needs.START
RUNS = naming.chains(config)  # a run with seeds is one for each of them
REWARDS = needs.used_rewards(config)
GIVEN_PAIRS = prompts.given_pairs(config["prompts"]) if RUNS else None
TRAINED = naming.of_chains(RUNS)
# Policies that are compared with the start policy: models of `evaluate`, and policies of runs.
COMPARED = [*config["evaluate"], *TRAINED]
POLICIES = [START, *COMPARED]
# Those that may answer training prompts.
SAMPLED = [START, *TRAINED]
# Policies whose pairs train a policy, and those whose completions are ranked: a preference dataset replaces the
# start policy's.
RUNS_ON_PAIRS = [run for run in RUNS if configuration.method_of(config, run) in ("preference", "kto")]
DATA_POLICIES = [START] if RUNS_ON_PAIRS else []
DATA_POLICIES += [f"{run}-{t}" for run in RUNS_ON_PAIRS for t in range(1, RUNS[run]["iterations"])]
# True if given pairs may be completions with labels, which only kto learns from.
TAKES_UNPAIRED = all(configuration.method_of(config, run) == "kto" for run in RUNS_ON_PAIRS)
RANKED = [name for name in DATA_POLICIES if name != START or not GIVEN_PAIRS]
