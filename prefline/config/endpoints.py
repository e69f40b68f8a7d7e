"""The section `endpoints` of the config: language models that answer, and the sections that name one.

`resolve` puts the whole endpoint, complete and with its name, in the place of the name: so rules and scripts
see one shape, that of prefline/servers/endpoint.py.
"""

import difflib

from prefline.config import schema
from prefline.errors import InputError

KINDS = ("openai", "anthropic", "vllm")
# What an endpoint is where the config leaves a key out.
DEFAULTS = {
    "model": None,
    "urls": [],
    "key_variable": None,
    "form": None,
    "dtype": "bfloat16",
    "requests_per_minute": 0,
    "tokens_per_minute": 0,
    "input_price": 0.0,
    "output_price": 0.0,
    "max_calls": None,
    "max_cost": None,
    "timeout": 600,
}
ANTHROPIC = {"urls": ["https://api.anthropic.com/v1"], "key_variable": "ANTHROPIC_API_KEY"}
# What shapes the answers. The rest says where to ask, how fast and for how much, and runs nothing again.
COUNTED = ("kind", "model", "form", "dtype")
# Where the keys of other sections went: {key there: key of the endpoint}.
MOVED = {
    "generate": {"servers": "urls", "served_model": "model"},
    "rewards": {"servers": "urls", "served_model": "model", "model": "model", "dtype": "dtype"},
    "judges": {"servers": "urls", "served_model": "model"}
    | {key: key for key in ("kind", *DEFAULTS) if key not in ("urls", "form", "timeout")},
    "benchmarks": {"servers": "urls", "judge": "model"},
}


def counted(endpoint):
    """What of an endpoint (dict, as `resolve` gives it) its answers depend on."""
    return {key: endpoint[key] for key in COUNTED}


def model_of(section):
    """The entry of `models` that a section needs, its own or its endpoint's of the kind vllm; or None."""
    endpoint = section.get("endpoint") or {}
    return endpoint["model"] if endpoint.get("kind") == "vllm" else section.get("model")


def check_places(config):
    """Raise InputError for a key that went to `endpoints`, and for an address with a key in it.

    config: as it is written, before it is held against the schema; no value is repeated.
    """
    for place, name, section, _ in _users(config):
        for key, moved in MOVED[place.rsplit(".", 1)[-1]].items():
            # Overlays take the keys of another kind of reward away by null.
            if key not in section or (place == "rewards" and key in ("model", "dtype") and not section[key]):
                continue
            where, name = f"{place}.{name}" if name else place, name or "own"
            served = key == "model"
            entry = "{kind: vllm, model: …}" if served else "{kind: openai, urls: […], model: …}"
            raise InputError(
                f"config: {where}.{key}: moved to endpoints.{name}.{moved}; write endpoints: {{{name}: "
                f"{entry}}} and {where}.endpoint: {name} (docs/endpoints.md)"
            )
    for name, endpoint in _sections(config, "endpoints"):
        if set("@?#") & set(str(endpoint.get("urls"))):
            raise InputError(
                f"config: endpoints.{name}.urls: an address ends with /v1 and has no user or key in it, "
                f"which logs would repeat; export the key, and name its variable in key_variable"
            )


def resolve(config):
    """Make the endpoints of a config (dict) complete, and put them in the place of their names.

    Raises InputError for an endpoint that its kind cannot be, that is missing, or that its user cannot take.
    """
    known = {
        name: _complete(name, endpoint, config["models"]) for name, endpoint in config["endpoints"].items()
    }
    config["endpoints"] = known
    for place, name, section, kinds in list(_users(config)):
        key = f"{place}.{name}.endpoint" if name else f"{place}.endpoint"
        chosen = section.get("endpoint")
        if chosen is None:
            if name and "endpoint" in section:
                raise InputError(f"config: {key}: name an entry of `endpoints`")
            continue
        if chosen not in known:
            near = difflib.get_close_matches(chosen, known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known) or 'none'}"
            raise InputError(f"config: {key} names {chosen!r}, which `endpoints` lacks; {hint}")
        endpoint = known[chosen]
        if endpoint["kind"] not in kinds:
            raise InputError(
                f"config: {key}: {chosen} is of the kind {endpoint['kind']}, and this takes "
                f"{' or '.join(kinds)}"
            )
        if name and endpoint["model"] is None:
            raise InputError(f"config: endpoints.{chosen}.model: say what the servers call the model")
        section["endpoint"] = endpoint
    if config["generate"]["endpoint"] and config["generate"]["engine"] != "server":
        raise InputError(
            f"config: generate.endpoint is asked by the engine server, and generate.engine is "
            f"{config['generate']['engine']}; set it to server, or endpoint to null"
        )


def without_nulls(endpoints):
    """A config's `endpoints` without those that are null, and without nulls in them: an overlay's."""
    return {
        name: {key: value for key, value in one.items() if value is not None}
        if isinstance(one, dict)
        else one
        for name, one in endpoints.items()
        if one is not None
    }


def _users(config):
    """(place, name or None, section, kinds that it takes) of each section that may name an endpoint."""
    if isinstance(config.get("generate"), dict):
        yield "generate", None, config["generate"], ("openai",)
    for name, section in _sections(config, "rewards"):
        if section.get("kind") == "judge":
            yield "rewards", name, section, KINDS
    for name, section in _sections(config.get("mt_bench"), "judges"):
        yield "mt_bench.judges", name, section, KINDS
    for name, section in _sections(config, "benchmarks"):
        if section.get("kind") == "alpaca_eval":
            yield "benchmarks", name, section, ("openai",)


def _sections(config, key):
    found = config.get(key) if isinstance(config, dict) else None
    return [
        (name, one)
        for name, one in (found.items() if isinstance(found, dict) else ())
        if isinstance(one, dict)
    ]


def _complete(name, endpoint, models):
    """An endpoint (dict) with every key and its name; InputError for keys that its kind refuses or lacks."""
    key, kind = f"config: endpoints.{name}", endpoint["kind"]
    taken = schema.kinds("endpoints.NAME")[kind]
    foreign = sorted(endpoint.keys() - {"kind", *taken})
    needed = "urls" if kind == "openai" else "model"
    if foreign or needed not in endpoint:
        wrong = f"does not take {foreign[0]!r}" if foreign else f"lacks {needed!r}"
        raise InputError(f"{key}: the kind {kind} {wrong}; it takes {', '.join(taken)}")
    if kind == "vllm" and endpoint["model"] not in models:
        raise InputError(
            f"{key}.model names the model {endpoint['model']!r}, which `models` lacks; known: "
            f"{', '.join(models)}"
        )
    complete = DEFAULTS | (ANTHROPIC if kind == "anthropic" else {}) | endpoint | {"name": name}
    if complete["max_cost"] is not None and not (complete["input_price"] and complete["output_price"]):
        raise InputError(f"{key}.max_cost limits nothing without prices: give input_price and output_price")
    return complete
