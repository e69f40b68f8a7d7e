"""Compare experiments: one picture, one table, who beats whom, and what differs in their configs.

Experiments of one clone share the start policy's answers and are judged on the same questions, so their
policies are compared question by question, as those of one experiment. A policy of several experiments has
one row.

    python -m tools.compare cold hot
"""

import argparse
import itertools
import math
import textwrap
from pathlib import Path

import yaml

from prefline import errors, files
from prefline import policies as naming
from prefline.config import endpoints
from prefline.data.sources import parse_url
from prefline.errors import InputError
from prefline.judging import comparisons, fastchat
from prefline.provenance import experiments
from prefline.provenance.hashes import Hashes
from prefline.reporting import pictures
from scripts.mt_bench import compute_winrate, plot_winrate

HASHES = ".snakemake/prefline_hashes.json"
# Keys that change no policy and no verdict, and those that change no training.
SILENT = ("experiment", "machine", "report", "publish")
OF_EVALUATIONS = ("evaluate", "mt_bench", "vibe_check", "benchmarks")
# Keys of mt_bench that change verdicts, beside those of the judge.
OF_VERDICTS = ("references", "judge_prompts", "verdicts")
LONGEST = 200  # letters of a file's name, less those that are added while it is written
MOST_NOTES = 8  # differences in the picture's notes
NOTE_WIDTH = 130  # letters that fit into the picture


def read(name, hashes):
    """Return an experiment (dict): name, made (winrate.json), config, inputs ({path: hash} of its win rates).

    Raises InputError for one that is missing, or whose win rates were made from other files or another
    config.
    """
    known = experiments.names()
    if name not in known:
        raise InputError(
            f"there is no experiment {name}; known: {', '.join(known) or 'none'}. Write experiment: {name} "
            f"into FILE, and run snakemake {experiments.FOLDER}/{name}/winrate.png --configfile FILE"
        )
    folder = Path(experiments.FOLDER, name)
    inputs = experiments.inputs(experiments.winrate_of(name), hashes)
    # The picture's record tells that these win rates and this config belong together.
    experiments.inputs(experiments.picture_of(name), hashes)
    made = files.read_json(folder / "winrate.json")
    config = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))
    return {"name": name, "made": made, "config": config, "inputs": inputs}


def check_alike(found):
    """Raise InputError unless experiments (of `read`) have one judge and one start policy."""
    first = found[0]
    for one in found[1:]:
        start = f"results/mt_bench/answers/{first['made']['start']}.jsonl"
        for what, values in (
            ("judge", [each["made"]["judge"] for each in (first, one)]),
            ("start policy", [each["made"]["start"] for each in (first, one)]),
            ("answers of the start policy", [each["inputs"].get(start, "")[:12] for each in (first, one)]),
        ):
            if values[0] != values[1]:
                raise InputError(
                    f"the experiments {first['name']} and {one['name']} have not the same {what} "
                    f"({values[0]}, {values[1]}), so their win rates are no comparison"
                )
        if differing := differences(
            [judging(each["config"], each["made"]["judge"]) for each in (first, one)]
        ):
            raise InputError(
                f"{first['made']['judge']} judged the experiments {first['name']} and {one['name']} with "
                f"other values of {differing[0][0]}, so their win rates are no comparison; give one judge "
                "another name, and run that experiment again"
            )


def judging(config, judge):
    """Return the part of a config (dict) that the verdicts of `judge` (str) depend on."""
    section = dict(config["mt_bench"].get("judges", {}).get(judge, {}))
    model = endpoints.model_of(section)
    if section.get("endpoint"):
        section["endpoint"] = endpoints.counted(section["endpoint"])
    found = {key: config["mt_bench"].get(key) for key in OF_VERDICTS} | {"judges": {judge: section}}
    rewards = config.get("rewards") if judge == "reward" else None
    models = {model: config.get("models", {}).get(model)} if model else None
    return {"mt_bench": found, "rewards": rewards, "models": models}


def check_repetitions(found):
    """Raise InputError if policies of experiments (of `read`) would count as repetitions, but are none.

    Names alone do not tell: dpo-s1-1 and dpo-s2-1 may be of other values of runs.dpo, and dpo-1 may be
    dpo-s1-1 once more.
    """
    for one, other in itertools.combinations(found, 2):
        mine, theirs = (naming.subjects(each["made"]["policies"]) for each in (one, other))
        for name in mine.keys() & theirs.keys():
            if set(mine[name]) == set(theirs[name]):
                continue
            run = naming.run_of(name)
            if name in (*mine[name], *theirs[name]):
                single, several = (one, other) if name in mine[name] else (other, one)
                raise InputError(
                    f"{name} is one training in the experiment {single['name']}, and a run with seeds in "
                    f"{several['name']}; give the run another name in one of them"
                )
            if differing := differences([of_training(each["config"], run) for each in (one, other)]):
                raise InputError(
                    f"{name} of the experiments {one['name']} and {other['name']} is of trainings that "
                    f"differ in more than seeds ({differing[0][0]}); give the run another name in one of them"
                )


def of_training(config, run):
    """Return the part of a config (dict) that may change the policies of a run, less its seeds."""
    kept = {key: value for key, value in config.items() if key not in OF_EVALUATIONS}
    own = config.get("runs", {}).get(run, {})
    return kept | {"runs": {run: {k: v for k, v in own.items() if k not in ("seeds", "iterations")}}}


def judgments_of(one):
    """Return ({policy: its judgments against the start policy}, those of policies with each other)."""
    judges = one["config"]["mt_bench"]["judge"]
    folder = Path("results/mt_bench/judgments", judges if isinstance(judges, str) else judges[0])
    paths = [Path(path) for path in sorted(one["inputs"]) if Path(path).parent == folder]
    rows = {path.stem: [row for _, row in fastchat.read_judgments(path)] for path in paths}
    matches = [row for name in rows if name not in one["made"]["policies"] for row in rows[name]]
    return {policy: rows[policy] for policy in one["made"]["policies"]}, matches


def merge(found):
    """Return experiments (of `read`) as one result, in the form that compute_winrate writes.

    With `experiments`: {row of the picture: names of its experiments}.
    """
    rows, pairs, told = {}, {}, {}
    for one in found:
        own, matches = judgments_of(one)
        rows |= own
        told |= one["made"]["win_rates"]
        pairs |= {(row["model_1"], row["model_2"], row["question_id"], row["turn"]): row for row in matches}
    source = found[0]["config"]["mt_bench"]["questions"]
    path = "results/mt_bench/data/questions.jsonl" if parse_url(source) else source
    start = found[0]["made"]["start"]
    return {
        **found[0]["made"],
        "policies": list(rows),
        "win_rates": told,
        "repeated": compute_winrate.over_seeds(rows, fastchat.read_questions(path)),
        "comparisons": comparisons.compare(list(rows), start, rows, list(pairs.values())),
        "other_judges": {},
        "all_pairs": {},
        "experiments": {
            name: ", ".join(one["name"] for one in found if set(own) & set(one["made"]["policies"]))
            for name, own in naming.subjects(rows).items()
        },
    }


def differences(configs):
    """Return the keys on which configs (list of dict) differ: [(dotted key, values)]; None: no such key.

    A section that one config lacks, such as a run, is one key.
    """
    return list(_differing([{key: one[key] for key in one if key not in SILENT} for one in configs]))


def _differing(sections, path=""):
    for key in dict.fromkeys(key for one in sections for key in one):
        values = [one.get(key) for one in sections]
        if all(isinstance(value, dict) for value in values):
            yield from _differing(values, f"{path}{key}.")
        elif any(value != values[0] for value in values):
            yield f"{path}{key}", values


def table(result, names, differing):
    """Return Markdown: the rates, who beats whom, and what differs. differing: of `differences`."""
    told = {**result["win_rates"], **result["repeated"]}
    lines = ["| policy | experiments | win rate | 95 % interval | seeds |", "|---|---|---|---|---|"]
    for name, own in naming.subjects(result["policies"]).items():
        rate = plot_winrate.figures(told[name]["overall"]).replace(" [", " | ").replace("]", "")
        cells = rate if " | " in rate else f"{rate} | "
        lines.append(f"| {name} | {result['experiments'][name]} | {cells} | {len(own)} |")
    lines += ["", "| policy | other | points ahead | 95 % interval | p, corrected |", "|---|---|---|---|---|"]
    for one in result["comparisons"]:
        if one["advantage"] is not None:
            ahead, low, high = (f"{100 * one[key]:+z.1f}" for key in ("advantage", "ci_low", "ci_high"))
            p = f"{one['p_corrected']:.2g}"
            lines.append(f"| {one['policy']} | {one['other']} | {ahead} | {low} to {high} | {p} |")
    lines += ["", f"| key | {' | '.join(names)} |", f"|---|{'---|' * len(names)}"]
    lines += [f"| {key} | {' | '.join(map(_cell, values))} |" for key, values in differing]
    return "\n".join(lines) + "\n"


def notes(names, differing):
    """Return what differs, of `differences`, as lines for the picture."""
    lines = ["Differences of the configs:"]
    for key, values in differing[:MOST_NOTES]:
        having = {}
        for name, value in zip(names, values, strict=True):
            having.setdefault(_shown(value) or "none", []).append(name)
        told = "; ".join(f"{value} in {', '.join(which)}" for value, which in having.items())
        lines += textwrap.wrap(f"{key}: {told}", NOTE_WIDTH, subsequent_indent="    ")
    more = len(differing) - MOST_NOTES
    return lines + [f"{more} more keys: in the table"] * (more > 0)


def _shown(value):
    if value is None:
        return ""
    text = yaml.safe_dump(value, default_flow_style=True, allow_unicode=True, width=math.inf)
    return " ".join(text.split("\n...")[0].split())


def _cell(value):
    return _shown(value).replace("|", "\\|")


def main(argv=None):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("experiments", nargs="+", help="their names, two or more")
    parser.add_argument(
        "--out", help="the picture, without its ending; default: results/experiments/A_vs_B (.png, .md)"
    )
    args = parser.parse_args(argv)
    # A shell completes names to paths.
    names = list(
        dict.fromkeys(name.rstrip("/").removeprefix(f"{experiments.FOLDER}/") for name in args.experiments)
    )
    if len(names) < 2:
        parser.error("name two experiments or more")
    if not args.out and len("_vs_".join(names)) > LONGEST:
        parser.error("their names are too long for the name of a file; name the picture with --out")
    hashes = Hashes(HASHES)
    found = [read(name, hashes) for name in names]
    check_alike(found)
    check_repetitions(found)
    result, differing = merge(found), differences([one["config"] for one in found])
    result["differences"] = notes(names, differing)
    out = args.out or f"{experiments.FOLDER}/{'_vs_'.join(names)}"
    text = table(result, names, differing)
    pictures.save(plot_winrate.draw(result), f"{out}.png")
    files.write_text(f"{out}.md", text)
    print(text)
    print(f"{out}.png, {out}.md")


if __name__ == "__main__":
    errors.run(main)
