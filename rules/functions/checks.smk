# The checks of the config: their names, files and settings, and those that cannot be made.


def checked_section(name):
    """Return the section of the config that names the data of a check."""
    if name in config["models"]:
        return f"models.{name}"
    return "prompts.preferences" if name == "preferences" else name


def checked(name):
    """Return what check_data is told of a model's data, or that of prompts, preferences or vibe_check."""
    if name in config["models"]:
        keys = section(f"models.{name}", "train_data", "eval_data", "columns")
        return {
            key: {"entrance": configuration.ENTRANCES[name], "source": keys[key], "columns": keys["columns"]}
            for key in ("train_data", "eval_data")
        }
    if name == "preferences":
        keys = section("prompts.preferences", "source", "columns")
        return {"source": {"entrance": "pairs", "unpaired": TAKES_UNPAIRED, **keys}}
    key = {"prompts": "source", "vibe_check": "prompts"}[name]
    return {key: {"entrance": "prompts", "source": config[name][key], "columns": config[name]["columns"]}}


def checked_files(wildcards):
    """Return the local files (list of str) of the data that is checked."""
    return data_files(*(named["source"] for named in checked(wildcards.checked).values()))


def root_of(model):
    """Return the finished model that a model of the config is, or that its training descends from."""
    while config["models"][model]["source"] is None:
        model = config["models"][model]["init"]
    return model


def rendered_by(model):
    """Return the names of the checks of data that the chat template of a finished model will render."""
    names = [name for name in TRAININGS if configuration.ENTRANCES.get(name, "texts") != "texts"]
    found = [name for name in names if root_of(name) == model]
    if root_of(START) == model:
        found += [*(["preferences"] if GIVEN_PAIRS else []), *(["prompts"] if RUNS else [])]
    return found + ["vibe_check"] * any(root_of(name) == model for name in [START, *config["evaluate"]])


def rendered_data(model):
    """Return what check_model is told of all data that the chat template of a finished model will render."""
    system = dict.fromkeys(("prompts", "preferences", "vibe_check"), config["prompts"]["system"])
    if config["vibe_check"]["system"] is not None:
        system["vibe_check"] = config["vibe_check"]["system"] or None
    more = {name: {"system": system[name]} for name in system}
    more |= {name: {"max_length": keys.get("max_length")} for name, keys in config["models"].items()}
    return {
        f"{checked_section(name)}.{key}": named | more[name]
        for name in rendered_by(model)
        for key, named in checked(name).items()
    }


def policy_flags(model):
    """Return the flags of check_model for the finished model of the start policy; "" for others."""
    if model != root_of(START):
        return ""
    asking = {
        "mt_bench": config["mt_bench"],
        **{f"benchmarks.{name}": BENCHMARKS[name] for name in BENCHMARKS},
    }
    systems = {f"{name}.system": section.get("system") for name, section in asking.items()}
    # Prompts without one of their own have the message of `prompts`.
    given = {key: text for key, text in systems.items() if text and text != config["prompts"]["system"]}
    return "--policy " + flags(systems=given)


def rendered_files(wildcards):
    """Return the local files (list of str) of that data."""
    return data_files(*(named["source"] for named in rendered_data(wildcards.model).values()))


def check_of_model(model):
    """Return the check of the finished model that a model is, or descends from, as an input."""
    return ancient(f"results/checks/models/{root_of(model)}.json")


def rewarded_by(reward):
    """Return the model of a reward and its check, as inputs, without those that there are not."""
    checked = [f"results/checks/rewards/{reward}.json"] if reward in FINISHED_REWARDS else []
    return {**served(REWARDS[reward]), "checked": ancient(checked) or check_of_endpoint(f"rewards.{reward}")}


# Finished models whose chat template renders the data.
ROOTS = list(dict.fromkeys(root_of(name) for name in [START, *NEEDED] if rendered_by(root_of(name))))
# Rewards by a model that is no language model: those with a finished model, and those that are trained here.
MODEL_REWARDS = {
    name: REWARDS[name] for name in REWARDS if REWARDS[name]["kind"] in ("classifier", "pairwise")
}
FINISHED_REWARDS = [
    name for name, values in MODEL_REWARDS.items() if config["models"][values["model"]]["source"] is not None
]

CHECKED = [f"results/checks/models/{model}.json" for model in ROOTS]
CHECKED += [f"results/checks/rewards/{reward}.json" for reward in FINISHED_REWARDS]
CHECKED += [f"results/checks/endpoints/{asker}.json" for asker in [*HOSTED, *ANNOTATED]]
CHECKED += [f"results/checks/references/{name}.json" for name in VERIFIED]
CHECKED += [
    f"results/checks/problems/{name}.json" for name in BENCHMARKS if BENCHMARKS[name]["kind"] == "math"
]
CHECKED += [
    f"results/checks/data/{name}.json"
    for name in (
        *(model for model in TRAININGS if model in configuration.ENTRANCES),
        *(["preferences"] if GIVEN_PAIRS else []),
        *(["prompts"] if RUNS else []),
        "vibe_check",
    )
]
# Checks that cannot be made, and why.
SKIPPED = {
    f"endpoints/{asker}": (
        f"the model {START} is trained here"
        if asker == "generate"
        else f"its jobs serve the model {values['endpoint']['model']} themselves"
    )
    for asker, values in ASKERS.items()
    if asker not in HOSTED
} | {
    f"rewards/{name}": f"the model {values['model']} is trained here"
    for name, values in MODEL_REWARDS.items()
    if name not in FINISHED_REWARDS
}


def skipped():
    """Return the checks that cannot be made, and why: {name: reason}."""
    without = {} if check_of_device({}) else {"device/gpu": "no job may get a GPU, so all compute on the CPU"}
    return SKIPPED | without
