"""What is kept of a benchmark: results/benchmarks/{benchmark}/{policy}.json, the same for every library.

    {"policy", "benchmark", "library", "version", "notes": [sentences for the reader],
     "metrics": [{"metric", "value", "stderr", "n", "settings"}]}

A value is on the library's own scale: some give parts of one, some percent. n counts the questions.
"""

import math

from scripts.common import files


def metric(name, value, stderr, n, settings):
    """One number (dict). stderr: its standard error, or None; n: int; settings: dict of JSON values."""
    return {
        "metric": name,
        "value": _finite(value),
        "stderr": _finite(stderr),
        "n": int(n),
        "settings": settings,
    }


def write(path, policy, benchmark, library, version, metrics, notes):
    """Write the results of a policy and say them. metrics: list of `metric`; notes: list of str."""
    files.write_json(
        path,
        {
            "policy": policy,
            "benchmark": benchmark,
            "library": library,
            "version": version,
            "notes": notes,
            "metrics": metrics,
        },
    )
    for one in metrics:
        stderr = "" if one["stderr"] is None else f" ± {one['stderr']:.4g}"
        value = "undefined" if one["value"] is None else f"{one['value']:.4g}"
        print(f"{policy}, {benchmark}: {one['metric']} {value}{stderr} ({one['n']} questions)")
    for note in notes:
        print(note)


def optional(text):
    """A flag's str, None for null: `config.flags` writes str as they are."""
    return None if text == "null" else text


def _finite(value):
    """`value` as a float; None for None and for what is no number, such as the error of a single answer."""
    return float(value) if value is not None and math.isfinite(value) else None
