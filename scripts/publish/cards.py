"""The parts that the cards of all models share."""

import json
from pathlib import Path

import jinja2

from prefline import files
from prefline.data import sources
from prefline.judging import winrate
from prefline.text import markdown

FOLDER = Path(__file__).parent


def ancestry(config, name):
    """Return a model and those it descends from: list of (name, source); only the last has a source."""
    found = []
    while True:
        source = config["models"][name]["source"]
        found.append((name, source))
        if source is not None:
            return found
        name = config["models"][name]["init"]


def hub_ids(origin, used):
    """Return (hub id of the base model or None, sorted hub ids of the datasets); None where there is none.

    origin: the source of the base model; used: data sources, each as sources.listed takes it.
    """
    base = sources.parse_hub(origin)
    named = [sources.parse_hub(one["source"]) for given in used for one in sources.listed(given)]
    return base[0] if base else None, sorted({hub[0] for hub in named if hub}) or None


def public(source):
    """Return a source (str) for the public: only the last part of a path outside the project."""
    return f"…/{Path(source).name}" if Path(str(source)).is_absolute() else source


def percent(share):
    return "-" if share is None else f"{100 * share:.1f} %"


def environment():
    """Return the jinja2.Environment of all cards, in which texts of others are shown literally."""
    made = jinja2.Environment(
        loader=jinja2.FileSystemLoader(FOLDER),
        autoescape=False,  # it is Markdown
        finalize=lambda value: markdown.literal(value) if type(value) is str else value,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        keep_trailing_newline=True,
    )
    made.filters.update(percent=percent, code=markdown.code, public=public, counted=winrate.counted)
    return made


def rendered(template, config, manifest, trained, metrics, hidden, measured, **values):
    """Return a card (str) from a template beside this file.

    manifest: of the published files; trained: that of the training, which for merged adapters is another;
    hidden: names of its params that the card leaves out; measured: names of metrics before and after; values:
    what else the template shows.
    """
    params, lineage = trained["lineage"]["params"], trained["lineage"]
    packages = lineage["packages"].items()
    before = {name: metrics.get(f"eval_{name}_before") for name in measured}
    return (
        environment()
        .get_template(template)
        .render(
            config=config,
            listed=sources.listed,
            metrics=metrics,
            hyperparameters=[(key, json.dumps(value)) for key, value in params.items() if key not in hidden],
            measured=[
                (name, one, metrics[f"eval_{name}"]) for name, one in before.items() if one is not None
            ],
            license=config["publish"]["license"],
            lineage=lineage,
            merged=manifest["lineage"]["params"].get("merge_into"),
            packages=", ".join(f"{name} {version}" for name, version in packages if version),
            files=sorted(manifest["files"].items()),
            parents=sorted(lineage["parents"].items()),
            **values,
        )
    )


def add_flags(parser):
    """Add the flags that the scripts of all cards have, to an argparse parser."""
    parser.add_argument("--manifest", required=True, help="manifest of the model (json)")
    parser.add_argument(
        "--trained",
        required=True,
        help="manifest of its training (json): of its adapters, if any",
    )
    parser.add_argument("--metrics", required=True, help="metrics.json of its training")
    parser.add_argument("--config", type=json.loads, required=True, help="the config as it was used, as JSON")
    parser.add_argument("--out", required=True, help="the card (Markdown)")


def read(args):
    """Return the arguments of `rendered` that the flags name (dict)."""
    return {
        "config": args.config,
        "manifest": files.read_json(args.manifest),
        "trained": files.read_json(args.trained),
        "metrics": files.read_json(args.metrics),
    }
