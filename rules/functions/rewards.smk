# Inputs of the config's rewards, and their weights.

# Rewards that cost no more than a reward model's forward pass.
CHEAP = [name for name in REWARDS if REWARDS[name]["kind"] in ("classifier", "function")]


def rewards_of(policy):
    """Return the rewards that a policy needs: all if completions are ranked, else those of its KL plot."""
    return REWARDS if policy in RANKED else CHEAP


def rewards_of_model(model):
    """Return (kind, head weights) of every reward that names a model."""
    sections = [section for section in REWARDS.values() if endpoints.model_of(section) == model]
    return [(section["kind"], section.get("head_weights")) for section in sections]


def models_of_rewards():
    """Return the directories of all models that rewards name."""
    named = {section["model"] for section in REWARDS.values() if section.get("model")}
    return [f"results/models/{model}" for model in sorted(named)]


def scoring(section):
    """Return the part of a reward's section that its scores depend on; of an endpoint, what changes answers."""
    values = {key: section[key] for key in sorted(section)}
    return values | ({"endpoint": endpoints.counted(section["endpoint"])} if "endpoint" in section else {})


def functions_of(*rewards):
    """Return the files that the functions of these rewards are in."""
    named = [
        section["function"] for name, section in REWARDS.items() if name in rewards and "function" in section
    ]
    return sorted({file_of(function) for function in named})


# Verifiers that say whether they can use a reference without an answer, which `code` cannot.
VERIFIERS = [
    f"prefline/rewards/verifiers.py:{name}" for name in ("math", "choice", "json_schema", "constraints")
]
VERIFIED = [name for name in REWARDS if REWARDS[name].get("function") in VERIFIERS]


def checks_of_references(*rewards):
    """Return the checks of the prompts' references for those of some rewards that verify answers, as an input."""
    return ancient([f"results/checks/references/{name}.json" for name in VERIFIED if name in rewards])


def called(wildcards):
    """Return the file of a reward's function with its modules, and its check, as inputs."""
    read = ancient(imports.own_modules(*functions_of(wildcards.reward)))
    return {"function": read, "checked": checks_of_references(wildcards.reward)}


def rubrics():
    """Return the files of all judges' rubrics."""
    return sorted({section["rubric"] for section in REWARDS.values() if "rubric" in section})


# A judge's job reads its rubric only after all completions are generated.
for name in [name for name in REWARDS if "rubric" in REWARDS[name]]:
    from prefline.rewards import rubric

    try:
        rubric.load(REWARDS[name]["rubric"])
    except InputError as error:
        raise Refusal(f"config: rewards.{name}.rubric: {error}")
