"""Check the section `endpoints` of the config, language models that answer, and the sections that name one.

`resolve` replaces each name by the complete endpoint, with its name. So rules and scripts see one shape, that
of prefline/servers/endpoint.py.
"""

import difflib
import re
from urllib.parse import urlsplit

from prefline.config import schema
from prefline.errors import InputError

KINDS = ("openai", "anthropic", "vllm")
# Defaults of an endpoint's keys.
DEFAULTS = {
    "model": None,
    "urls": [],
    "key_variable": None,
    "form": None,
    "extra_body": {},
    "extra_query": {},
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
# Keys that change the answers. The others set address, rate and price, and an edit of them runs nothing
# again.
COUNTED = ("kind", "model", "form", "extra_body", "dtype")
# Fields of a request that Prefline sets, or reads the answer by: `extra_body` must not set them.
OWN_FIELDS = frozenset(
    [
        *("model", "messages", "prompt", "system", "n", "best_of", "echo", "stream", "stream_options"),
        *("max_tokens", "max_completion_tokens", "temperature", "top_p", "top_k", "min_p", "seed", "stop"),
        *("presence_penalty", "frequency_penalty", "repetition_penalty", "stop_token_ids", "logprobs"),
        *("top_logprobs", "prompt_logprobs", "return_token_ids", "skip_special_tokens"),
    ]
)
# Names of what carries a key.
SECRET = re.compile(r"(api|access|auth|subscription)?[-_]?(key|token|secret|password|sig)", re.IGNORECASE)
# Keys of other sections that moved to an endpoint: {key there: key of the endpoint}.
MOVED = {
    "generate": {"servers": "urls", "served_model": "model"},
    "rewards": {"servers": "urls", "served_model": "model", "model": "model", "dtype": "dtype"},
    "judges": {"servers": "urls", "served_model": "model"}
    | {
        key: key
        for key in ("kind", *DEFAULTS)
        if key not in ("urls", "form", "timeout", "extra_body", "extra_query")
    },
    "benchmarks": {"servers": "urls", "judge": "model"},
}


def counted(endpoint):
    """Return the part of an endpoint (dict, as `resolve` gives it) that its answers depend on."""
    return {key: endpoint[key] for key in COUNTED}


def model_of(section):
    """Return the entry of `models` that a section needs, its own or its vllm endpoint's; or None."""
    endpoint = section.get("endpoint") or {}
    return endpoint["model"] if endpoint.get("kind") == "vllm" else section.get("model")


def check_places(config):
    """Raise InputError for a key that moved to `endpoints`, and for an address with a key in it.

    config: as written, before validation. Messages repeat no value.
    """
    for place, name, section, _ in _users(config):
        for key, moved in MOVED[place.rsplit(".", 1)[-1]].items():
            # An overlay removes the keys of another kind of reward with null.
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
    """Complete the endpoints of a config (dict), and replace their names by them.

    Raises InputError for an endpoint that is missing, has keys of another kind, or is of a kind that its
    section does not take.
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
                f"config: {key}: {chosen} is of the kind {endpoint['kind']}; name one of the kind "
                f"{' or '.join(kinds)}"
            )
        if name and endpoint["model"] is None:
            raise InputError(
                f"config: endpoints.{chosen}.model is missing; set it to the servers' name of the model"
            )
        if place == "generate" and endpoint["extra_body"]:
            raise InputError(
                f"config: endpoints.{chosen}.extra_body: policies are sampled by `generate` alone; "
                "remove it, or give generate an endpoint without it"
            )
        section["endpoint"] = endpoint
    if config["generate"]["endpoint"] and config["generate"]["engine"] != "server":
        raise InputError(
            f"config: only the engine server uses generate.endpoint, and generate.engine is "
            f"{config['generate']['engine']}; set it to server, or endpoint to null"
        )


def without_nulls(endpoints):
    """Return a config's `endpoints` without those that an overlay set to null, and without null keys."""
    return {
        name: {key: value for key, value in one.items() if value is not None}
        if isinstance(one, dict)
        else one
        for name, one in endpoints.items()
        if one is not None
    }


def _users(config):
    """Yield (place, name or None, section, kinds that it takes) of each section that may name an endpoint."""
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
    """Return an endpoint (dict) with every key and its name; InputError for a missing or unknown key."""
    key, kind = f"config: endpoints.{name}", endpoint["kind"]
    taken = schema.kinds("endpoints.NAME")[kind]
    foreign = sorted(endpoint.keys() - {"kind", *taken})
    needed = "urls" if kind == "openai" else "model"
    if foreign or needed not in endpoint:
        wrong = f"does not take {foreign[0]!r}" if foreign else f"lacks {needed!r}"
        raise InputError(f"{key}: the kind {kind} {wrong}; it takes {', '.join(taken)}")
    for number, url in enumerate(endpoint.get("urls", [])):
        if mistake := _url_mistake(url):
            raise InputError(f"{key}.urls.{number}: {url!r:.100} {mistake}")
    if kind == "vllm" and endpoint["model"] not in models:
        raise InputError(
            f"{key}.model names the model {endpoint['model']!r}, which `models` lacks; known: "
            f"{', '.join(models)}"
        )
    for part in ("extra_body", "extra_query"):
        if secret := next((one for one in endpoint.get(part, {}) if SECRET.fullmatch(str(one))), None):
            raise InputError(
                f"{key}.{part}.{secret}: keys are not written in a config, which the report repeats; "
                "export the key, and name its variable in key_variable"
            )
    if own := sorted(OWN_FIELDS.intersection(endpoint.get("extra_body", {}))):
        raise InputError(f"{key}.extra_body.{own[0]}: Prefline sets this field itself; remove it")
    complete = DEFAULTS | (ANTHROPIC if kind == "anthropic" else {}) | endpoint | {"name": name}
    if complete["max_cost"] is not None and not (complete["input_price"] and complete["output_price"]):
        raise InputError(f"{key}.max_cost limits nothing without prices: give input_price and output_price")
    return complete


def _url_mistake(url):
    """Return the mistake in a server's address, as words (str) that follow the address; None without one."""
    if re.search(r"[\s{}]", url):
        return "has a blank or a brace in it; remove it"
    try:
        parts = urlsplit(url)
        port, host = parts.port, parts.hostname or ""
    except ValueError as error:
        return f"is not an address: {error}"
    if parts.scheme not in ("http", "https"):
        return "does not begin with http:// or https://; write http://HOST:PORT/v1"
    if port == 0 or not all(host.rstrip(".").split(".")):
        return "names no server; write http://HOST:PORT/v1"
    if parts.path.rstrip("/").endswith("/completions"):
        return "continues after /v1; leave /completions or /chat/completions out"
    return None
