# What the rewards that the config names read, and how they count.

# Rewards that cost no more than a reward model's forward pass.
CHEAP = [name for name in REWARDS if REWARDS[name]["kind"] in ("classifier", "function")]


def rewards_of(policy):
    """The rewards that the workflow needs of a policy: all where completions are ranked, else what drift reads."""
    return REWARDS if policy in RANKED else CHEAP


def rewards_of_model(model):
    """What a model is to score as: (kind, head weights) of every reward that names it."""
    sections = [section for section in REWARDS.values() if endpoints.model_of(section) == model]
    return [(section["kind"], section.get("head_weights")) for section in sections]


def models_of_rewards():
    """The directories of all models that rewards name."""
    named = {section["model"] for section in REWARDS.values() if section.get("model")}
    return [f"results/models/{model}" for model in sorted(named)]


def scoring(section):
    """What of a reward's section its scores depend on: of an endpoint, what counts."""
    values = {key: section[key] for key in sorted(section)}
    return values | ({"endpoint": endpoints.counted(section["endpoint"])} if "endpoint" in section else {})


def functions_of(*rewards):
    """The files that the functions of these rewards are in."""
    named = [
        section["function"] for name, section in REWARDS.items() if name in rewards and "function" in section
    ]
    return sorted({file_of(function) for function in named})


def rubrics():
    """The files of all judges' rubrics."""
    return sorted({section["rubric"] for section in REWARDS.values() if "rubric" in section})
