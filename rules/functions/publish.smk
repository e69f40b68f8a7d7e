# Inputs of the cards and of what is pushed to the hub.

# Models of the config that are trained here; policies of runs are, too.
TRAINED_HERE = [name for name in configuration.ENTRANCES if config["models"][name]["source"] is None]


# Policies that learnt from pairs.
WITH_PAIRS = [policy for policy in TRAINED if naming.chain_of(policy) in RUNS_ON_PAIRS]
# Cards of pairs that are written with the others.
PAIRS_CARDS = (
    [f"{FINAL}/cards/{policy}-pairs.md" for policy in WITH_PAIRS] if config["publish"]["pairs"] else []
)


def pairs_of(wildcards, suffix):
    """Return the pairs that an iteration learns from, or with the suffix json their counts."""
    return [f"results/samples/{policy}/preferences.{suffix}" for policy in get_data_policies(wildcards)]


def trained_manifest(model):
    """Return the manifest of the training of {model}: that of its adapters, or its own."""
    return f"results/{'adapters' if peft_of(model) else 'models'}/{model}.json"


def pushes_weights(model):
    """Return whether the whole weights of a model are pushed: those without adapters always are."""
    return config["publish"]["weights"] != "adapter" or not peft_of(model)


def pushed(wildcards):
    """Return what is pushed of {model}; refuse what cannot be pushed before any job starts."""
    model, found = wildcards.model, {}
    if config["publish"]["namespace"] is None:
        refuse("config: publish.namespace is null; set it to your user or organization on the hub")
    if model not in [*TRAINED, *TRAINED_HERE]:
        refuse(f"results/published/{model}.json: models.{model} is not trained here; publish one that is")
    if pushes_weights(model):
        found["model"] = f"results/models/{model}"
    if peft_of(model) and config["publish"]["weights"] != "merged":
        found |= {"adapter": f"results/adapters/{model}", "base": base_of(model)}
    return found


def base_of(model):
    """Return the file that tells where others find the model that {model}'s adapters were trained on."""
    start = Path(get_start(SimpleNamespace(model=model))).name
    source = config["models"].get(start, {}).get("source")
    if source is not None and local_files(source):
        refuse(
            f"config: publish.weights is {config['publish']['weights']}, but the adapters of {model} were "
            f"trained on models.{start}, the directory {source}, which others lack; set publish.weights to merged"
        )
    if source is None and not pushes_weights(start):
        refuse(
            f"config: publish.weights is adapter, but the adapters of {model} were trained on {start}, whose "
            "weights would not be pushed; set publish.weights to both"
        )
    return f"results/models/{start}.json" if source else f"results/published/{start}.json"


def pushed_pairs(wildcards):
    """Return the pairs that a policy learnt from, if they are pushed, too."""
    if not config["publish"]["pairs"] or wildcards.model not in WITH_PAIRS:
        return []
    run, number = naming.chain_of(wildcards.model), iteration(wildcards.model)
    return pairs_of(SimpleNamespace(run=run, iteration=number), "parquet")


def pushed_pairs_card(wildcards):
    """Return the card of these pairs."""
    return [f"{FINAL}/cards/{wildcards.model}-pairs.md"] if pushed_pairs(wildcards) else []
