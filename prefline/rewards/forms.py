"""Find the kind of a reward model, and check that it can score, by its config, weights and template."""

from prefline.errors import InputError
from prefline.rewards import loading, templates

# The classes of transformers under which a model may name its own scoring code.
OWN = ("AutoModelForSequenceClassification", "AutoModel")
PUT_CODE = (
    "put its makers' code beside the weights, name it in config.json under auto_map, and allow it with "
    "models.NAME.remote_code"
)


def form(model, head_weights=None):
    """Return how the model directory `model` scores dialogues.

    One of "own code", "gated", "encoder" and "sequence classifier". Reads its config and the shapes of its
    weights. Raises InputError for a model that gives no single score.
    """
    config = loading.read_config(model)
    if own_class(model, config):
        return "own code"
    architecture = (config.architectures or [None])[0]
    if architecture is None:
        raise InputError(f"{model}: its config.json names no architecture, by which to read its weights")
    if architecture.endswith("ForRewardModelWithGating"):
        if head_weights is not None:
            raise InputError(f"{model}: its gate weighs its heads; set head_weights: null")
        return "gated"
    named = _named(config)
    if OWN[0] in named or architecture == named.get(OWN[1]):
        raise InputError(
            f"{model}: scores with its own code, which config.json names under auto_map; read that code, "
            "then allow it with models.NAME.remote_code"
        )
    if not architecture.endswith("ForSequenceClassification"):
        raise InputError(f"{model}: is a {architecture}, which gives no score; {_instead(model)}")
    from transformers.models.auto.modeling_auto import (
        MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES as KNOWN,
    )

    if KNOWN.get(config.model_type) != architecture:
        raise InputError(
            f"{model}: is a {architecture}, which transformers does not have for the model_type "
            f"{config.model_type}; {PUT_CODE}"
        )
    check_heads(model, labels(model, config), head_weights)
    return "sequence classifier" if "score.weight" in loading.shapes(model) else _headed(model)


def check(model, head_weights=None):
    """Raise InputError unless the model directory `model` is complete and can score, also by its template.

    Reads no weights, but runs the model's own code if it has any.
    """
    kind = form(model, head_weights)
    templates.check(loading.tokenizer(model), model)
    if kind == "own code":
        from prefline.rewards import own_code

        own_code.check(model, head_weights)
    elif kind == "gated":
        from prefline.rewards import gated

        gated.check(model)
    else:
        loaded = loading.load("AutoModelForSequenceClassification", model, shapes_only=True, **shape(model))
        if kind == "encoder":
            from prefline.rewards import encoder

            encoder.check(model, loaded.config)


def own_class(model, config):
    """Return the class of transformers (str) under which the model names its own scoring code, or None."""
    named = _named(config) if loading.brings_code(model) else {}
    mine = [name for name in OWN if named.get(name) in (config.architectures or [])]
    return next(iter(mine or [name for name in OWN if name in named]), None)


def _named(config):
    """Return {class of transformers: class of the model's own code} of a config's auto_map."""
    named = getattr(config, "auto_map", None) or {}
    return {name: str(code).rsplit(".", 1)[-1] for name, code in named.items()}


def labels(model, config):
    """Return the number of outputs (int): the head's rows, which a config need not repeat."""
    return loading.shapes(model).get("score.weight", [config.num_labels])[0]


def shape(model):
    """Return the options that make transformers' classifier as wide as the head of the directory `model`."""
    head = loading.shapes(model).get("score.weight")
    return {} if head is None else {"num_labels": head[0]}


def check_heads(model, number, head_weights):
    """Raise InputError unless head_weights (list, or None where there is one output) fit `number` outputs."""
    if head_weights is None and number != 1:
        raise InputError(
            f"{model}: a reward model with {number} labels where one is needed; if they are rewards to add "
            "up, give a weight for each in head_weights"
        )
    if head_weights is not None and len(head_weights) != number:
        raise InputError(f"{model}: has {number} outputs, but head_weights has {len(head_weights)} numbers")


def _instead(model):
    heads = loading.heads(model)
    if heads:
        return f"only its makers' code can read its head {heads[0]}; {PUT_CODE}"
    return f"take a sequence classifier, or for a model with its own code: {PUT_CODE}"


def _headed(model):
    """Return "encoder" for a classifier that transformers reads in a way of its architecture."""
    loaded = loading.load("AutoModelForSequenceClassification", model, shapes_only=True)
    return "encoder" if not hasattr(loaded, "score") else "sequence classifier"
