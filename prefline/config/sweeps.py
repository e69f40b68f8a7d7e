"""Expand a run's `sweep` into runs, so that nothing that reads the config later knows of sweeps.

    sweep: {beta: [0.05, 0.5], eta: [1, 2]}         a grid: dpo_beta_0p05_eta_1, dpo_beta_0p05_eta_2, …
    sweep: {low: {beta: 0.05}, high: {beta: 0.5}}   points with names: dpo_low, dpo_high

A run's name is a part of file names and of targets, so 0.05 is written 0p05, and 1e-7 as 1em7.
"""

import contextlib
import difflib
import itertools
import re

from prefline.config import precedence
from prefline.config import schema as schemas
from prefline.errors import InputError

MOST_RUNS = 100  # with those of all sweeps
LONGEST = 64  # letters of a run's name
FORMS = (
    "{beta: [0.05, 0.5]} for all combinations of values, "
    "or {low: {beta: 0.05}, high: {beta: 0.5}} for points by name"
)


def expand(runs, layers):
    """Return (runs, paths, sweeps), where the runs of its points replace each run with a `sweep`.

    runs: {name: section} as merged; layers: as precedence.layers returns them; paths: {run: sections of a
    config file (list of tuple of keys) that have its own values}; sweeps: {run: {run of a point: its values,
    as a grid has them; None for a point with a name}}. Raises InputError for a sweep that makes no
    runs, or runs of the same name.
    """
    found, paths, sweeps = {}, {}, {}
    for run, section in runs.items():
        swept = isinstance(section, dict) and section.get("sweep") is not None
        points = _points(run, section["sweep"]) if swept else {}
        kept = {k: v for k, v in section.items() if k != "sweep"} if isinstance(section, dict) else section
        for name, (path, values) in points.items() if swept else [(run, ((), {}))]:
            if name in found or (name in runs and name != run):
                raise InputError(
                    f"config: runs.{run}.sweep makes the run {name}, which `runs` has, too; rename one"
                )
            _check_later(run, path, values, layers)
            if swept:
                sweeps.setdefault(run, {})[name] = values if path == ("runs", run, "sweep") else None
            found[name] = kept | values if swept else kept
            paths[name] = [("runs", run), *([path] if swept else [])]
    _check_number(found, sweeps)
    return found, paths, sweeps


def _check_number(found, sweeps):
    """Raise InputError for too many runs; it names the run whose sweep makes the most."""
    if len(found) <= MOST_RUNS:
        return
    if not sweeps:
        raise InputError(f"config: runs: {len(found)} runs, but at most {MOST_RUNS} can be made; remove some")
    largest = max(sweeps, key=lambda run: len(sweeps[run]))
    raise InputError(
        f"config: runs.{largest}.sweep makes {len(sweeps[largest])} of {len(found)} runs in all, but at most "
        f"{MOST_RUNS} can be made; take fewer values, or points by name in place of a grid"
    )


def _points(run, sweep):
    """Return {name: (path of the section with its values, values)} of a run's sweep, in their order."""
    key, sections = f"runs.{run}.sweep", ()
    if isinstance(sweep, dict):
        sections = {name: section for name, section in sweep.items() if section is not None}
    if sections and all(isinstance(section, dict) for section in sections.values()):
        points = {
            f"{run}_{name}": (("runs", run, "sweep", name), section) for name, section in sections.items()
        }
        for name, section in sections.items():
            _check_keys(f"{key}.{name}", section)
    elif sections and all(isinstance(section, list) for section in sections.values()):
        points = _grid(run, key, sections)
    else:
        raise InputError(f"config: {key}: give {FORMS}; null removes it")
    for name in points:
        if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
            raise InputError(f"config: {key}: {name} is no name of a run; use small letters, digits and _")
        if len(name) > LONGEST:
            raise InputError(
                f"config: {key}: the name {name} has more than {LONGEST} letters; give the points names: "
                "{low: {…}, high: {…}}"
            )
    return points


def _grid(run, key, lists):
    _check_keys(key, lists)
    number, named = 1, []
    for name, values in lists.items():
        if not values:
            raise InputError(f"config: {key}.{name}: the list is empty; give values, or null to leave it out")
        number *= len(values)
        if number > MOST_RUNS:
            raise InputError(
                f"config: {key}: {number} combinations or more, but at most {MOST_RUNS} runs can be made; "
                "take fewer values, or points by name in place of a grid"
            )
        shown = [_shown(f"{key}.{name}", value, name) for value in values]
        for one in shown:
            if shown.count(one) > 1:
                raise InputError(f"config: {key}.{name}: two values have the name {one}; remove one")
        named.append([(f"{name}_{one}", {name: value}) for one, value in zip(shown, values, strict=True)])
    return {
        "_".join([run, *(name for name, _ in point)]): (
            ("runs", run, "sweep"),
            {name: value for _, own in point for name, value in own.items()},
        )
        for point in itertools.product(*named)
    }


def _check_keys(key, section):
    known = schemas.properties(schemas.at("runs.NAME")).keys() - {"sweep", "seeds"}
    for name in section:
        if name == "seeds":
            raise InputError(
                f"config: {key} has seeds, which repeat a training; write `seeds` beside `sweep`, for "
                "all its points"
            )
        if name not in known:
            near = difflib.get_close_matches(str(name), known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"known keys: {', '.join(sorted(known))}"
            raise InputError(f"config: {key} has no key {name!r}; {hint}")


def _shown(key, value, name):
    """Return a value as a part of a run's name: 0p05 of 0.05."""
    if isinstance(value, str):
        types = schemas.types(schemas.properties(schemas.at("runs.NAME"))[name])
        with contextlib.suppress(ValueError):  # the schema has the better message
            value = float(value) if {"number", "integer"} & set(types) else value
    if value is None or isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (int, float)):
        return _number(value)
    if isinstance(value, list) and value and all(isinstance(one, str) for one in value):
        value = "_".join(value)
    shown = re.sub(r"[^a-z0-9]+", "_", value.lower()).strip("_") if isinstance(value, str) else ""
    if not shown:
        raise InputError(
            f"config: {key}: {value!r} makes no name; give the points names: {{low: {{{name}: …}}}}"
        )
    return shown


def _number(value):
    """Return a number without dot, plus or minus: 1 of 1.0, 0p05 of 0.05, 1em7 of 1.0e-7."""
    digits, _, exponent = repr(float(value)).partition("e")
    text = digits.removesuffix(".0") + (f"e{int(exponent)}" if exponent else "")
    return text.replace(".", "p").replace("-", "m")


def _check_later(run, path, values, layers):
    """Raise InputError for a run's value in a file after that of the sweep, which replaces the value."""
    for key in values:
        if precedence.last_layer(layers, ("runs", run), key) > precedence.last_layer(layers, path, key) >= 0:
            raise InputError(
                f"config: runs.{run}.{key} has no effect, because runs.{run}.sweep of an earlier file gives "
                f"{key}; add sweep: null there to remove it"
            )
