"""Tell which models and rewards the runs and evaluations of a config need."""

from prefline.config import endpoints
from prefline.config import judges as judge_settings
from prefline.errors import InputError

START = "sft"


def used_rewards(config):
    """Return {name: section} of the rewards that something asks for: all if a run trains on them.

    Without a run, the judge `reward` needs the classifiers, and a benchmark of rewards those by models.
    """
    kinds = {"classifier"} if "reward" in judge_settings.names_of(config["mt_bench"]) else set()
    if any(section["kind"] == "reward_bench" for section in config["benchmarks"].values()):
        kinds |= {"classifier", "pairwise"}
    rewards = config["rewards"]
    return {name: rewards[name] for name in rewards if config["runs"] or rewards[name]["kind"] in kinds}


def used_models(config):
    """Return the models (set of str) that answer as policies or give rewards, less the policies of runs."""
    named = map(endpoints.model_of, used_rewards(config).values())
    return {START, *config["evaluate"], *filter(None, named)}


def answering_models(config):
    """Return the models (set of str) that answer or score: those of `used_models`, and those of judges."""
    named = config["mt_bench"]["judges"]
    asked = [named[name] for name in judge_settings.names_of(config["mt_bench"]) if name in named]
    return {*used_models(config), *filter(None, map(endpoints.model_of, asked))}


def models_with_ancestors(config, names):
    """Return the models of `names` and those that their trainings start from, in the config's order."""
    found, waiting = set(), list(names)
    for name in waiting:
        if name not in found:
            found.add(name)
            if config["models"][name]["source"] is None:
                waiting.append(config["models"][name]["init"])
    return [name for name in config["models"] if name in found]


def check_evaluated(config):
    """Raise InputError for a name in `evaluate` that is no other language model than the start policy."""
    for name in config["evaluate"]:
        wrong = None
        if name in config["runs"]:
            wrong = "is a run, whose policies are always evaluated; remove it"
        elif name not in config["models"]:
            wrong = f"is no entry of `models`; known: {', '.join(config['models'])}"
        elif name == START:
            wrong = "is the start policy, with which all are compared; name others"
        elif name == "reward_model" and config["models"][name]["source"] is None:
            wrong = "is trained as a classifier, and answers nothing; remove it"
        elif "_vs_" in name or name.endswith("_single"):
            wrong = "has a part that names of matches have, _vs_ or _single; give the model another name"
        if wrong:
            raise InputError(f"config: evaluate: {name} {wrong}")
