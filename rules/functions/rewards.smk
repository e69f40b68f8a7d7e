# What the rewards that the config names read, and how they count.

# Rewards that cost no more than a reward model's forward pass.
CHEAP = [name for name in REWARDS if REWARDS[name]["kind"] in ("classifier", "function")]


def rewards_of(policy):
    """The rewards that the workflow needs of a policy: all where completions are ranked, else what drift reads."""
    return REWARDS if policy in RANKED else CHEAP


def rewards_of_model(model):
    """What a model is to score as: (kind, head weights) of every reward that names it."""
    sections = [section for section in REWARDS.values() if section.get("model") == model]
    return [(section["kind"], section.get("head_weights")) for section in sections]


def get_reward_model(wildcards):
    """The model that a reward names, as inputs; none if it names none."""
    model = REWARDS[wildcards.reward]["model"]
    if model is None:
        return {}
    return {"model": ancient(f"results/models/{model}"), "manifest": f"results/models/{model}.json"}


def models_of_rewards():
    """The directories of all models that rewards name."""
    named = {section["model"] for section in REWARDS.values() if section.get("model")}
    return [f"results/models/{model}" for model in sorted(named)]


def files_of_rewards(*kinds):
    """The files that rewards of these kinds read: rubrics of judges, and what functions stand in."""
    sections = [section for section in REWARDS.values() if section["kind"] in kinds]
    read = [section.get("rubric") or section["function"].rsplit(":", 1)[0] for section in sections]
    return sorted(set(read))


def function_file(reward):
    """The file that a reward's function stands in."""
    return REWARDS[reward]["function"].rsplit(":", 1)[0]
