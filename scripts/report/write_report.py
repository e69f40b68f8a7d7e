"""Write results/report.html: the whole experiment on one page that needs no network and opens from a disk.

Pictures, tables, the answers with their verdicts and the sampled completions are in the page itself. Model
outputs are packed into it as data. The page's script shows their Markdown as text of elements that it makes:
no link, image or script of a model is ever in the page. The template, the style and the scripts are in
scripts/report/. The page shows its inputs, the costs of the jobs in this folder and the commit of the code.

    python -m scripts.report.write_report --winrate results/winrate.json \\
        --policies sft dpo-1 … (--help lists all)
"""

import base64
import datetime
import hashlib
import json
import subprocess
from pathlib import Path

import jinja2
import yaml
from markupsafe import Markup

from prefline import errors, files
from prefline import policies as naming
from prefline.config import section
from prefline.data import prompts, sources
from prefline.judging import fastchat, winrate
from prefline.machine import costs
from prefline.provenance import records
from prefline.reporting import browsed, contents, rulegraph

ASSETS = Path(__file__).parent
VIBE_CHECK = {name: name for name in ("messages", "answer", "finish_reason")}


def percent(share):
    """Return a share (float) as a percentage (str); a hyphen for None."""
    return "-" if share is None else f"{100 * share:.1f} %"


def rate(row):
    """Return a win rate with its interval as a small picture (SVG): the line in the middle is 50 %."""
    if row["win_rate_adjusted"] is None:
        return "-"
    low, high, middle = (100 * row[name] for name in ("ci_low", "ci_high", "win_rate_adjusted"))
    drawn = (
        '<svg viewBox="0 0 100 12" preserveAspectRatio="none" aria-hidden="true">'
        '<path d="M0 6 H100 M50 0 V12" stroke="var(--line)" vector-effect="non-scaling-stroke"/>'
        f'<path d="M{low:.1f} 6 H{high:.1f}" stroke="var(--accent)" stroke-width="2" '
        'vector-effect="non-scaling-stroke"/>'
        f'<path d="M{middle:.1f} 1 V11" stroke="var(--accent)" stroke-width="4" '
        'vector-effect="non-scaling-stroke"/>'
        "</svg>"
    )
    return Markup(f'<span class="rate">{drawn}{percent(row["win_rate_adjusted"])}</span>')


def picture(address, description):
    return Markup('<figure><img src="{}" alt="{}"></figure>').format(address, description)


def vibe_check(policies, paths):
    """Return the prompts of the vibe check with every policy's answer: [{messages, answers}]."""
    answered = [[row for _, row in sources.read_rows(path, VIBE_CHECK)] for path in paths]
    return [
        {
            "messages": rows[0]["messages"],
            "answers": [
                {"policy": policy, "text": row["answer"], "cut": row["finish_reason"] == "length"}
                for policy, row in zip(policies, rows, strict=True)
            ],
        }
        for rows in zip(*answered, strict=True)
    ]


def cost_tables(folder):
    """Return the tables of what the jobs cost, by rule and by run: [{columns, rows}]; [] without any."""
    jobs = costs.benchmarked(folder)
    tables = []
    for title, key in (("rule", lambda job: job["rule"]), ("run", costs.run_of)) if jobs else ():
        columns = [title, *(costs.COLUMNS[name] for name in costs.OF_BENCHMARKS)]
        rows = [
            [
                name,
                *(
                    f"{row[column]:,.0f}" if column in ("jobs", "memory") else f"{row[column]:.3f}"
                    for column in costs.OF_BENCHMARKS
                ),
            ]
            for name, row in costs.totals(jobs, [], key).items()
        ]
        tables.append({"columns": columns, "rows": rows})
    return tables


def render(**values):
    """Return the page (str) of the values that the template names."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(ASSETS),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals.update(percent=percent, rate=rate, picture=picture, counted=winrate.counted)
    style, *scripts = (
        (ASSETS / name).read_text("utf-8") for name in ("style.css", "markdown.js", "browser.js")
    )
    script = "".join(scripts)
    # The browser runs this script and no other, whoever wrote it into the page.
    script_hash = f"sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}"
    return environment.get_template("page.html.j2").render(
        style=Markup(style), script=Markup(script), script_hash=script_hash, **values
    )


def commit():
    """Return the commit of the code (str), with a remark where files differ from it; None outside of git."""
    try:
        asked = [
            subprocess.run(["git", *words], capture_output=True, text=True, check=True).stdout.strip()
            for words in (
                ["rev-parse", "--short=12", "HEAD"],
                ["status", "--porcelain", "--untracked-files=no"],
            )
        ]
    except (OSError, subprocess.CalledProcessError):
        return None
    return f"{asked[0]}{', with changes that are not committed' if asked[1] else ''}"


def written(winrate):
    """Return when and from which code the page and the win rates in the file `winrate` are (str)."""
    made = datetime.date.fromtimestamp(Path(winrate).stat().st_mtime)
    code = commit()
    return (
        f"Win rates of {made}; page of {datetime.date.today()}"
        f"{f', by the code of commit {code}' if code else ''}."
    )


def parse(argv):
    parser = section.parser(__doc__)
    for name, text in (
        ("winrate", "winrate.json"),
        ("winrate-picture", "its picture (png)"),
        ("questions", "MT-Bench's questions (jsonl)"),
        ("samples", "folder with a folder for each policy that was sampled"),
        ("training", "folder with a folder for each trained model"),
        ("logs", "folder of Snakemake's logs and benchmark files"),
        ("config", "the config as it was used, as JSON"),
        ("runs", "for each run, all values of its trainings, as JSON"),
        ("out", "the page (html)"),
    ):
        parser.add_argument(f"--{name}", required=True, help=text)
    parser.add_argument(
        "--sweeps-picture", nargs="*", required=True, help="win rates of sweeps (png), if any"
    )
    parser.add_argument(
        "--drift-picture", nargs="*", required=True, help="of rewards against KL (png), if any"
    )
    parser.add_argument("--pool", nargs="*", required=True, help="pool.json, of the prompts, if any")
    parser.add_argument("--policies", nargs="+", required=True, help="all policies, the start policy first")
    parser.add_argument("--answers", nargs="+", required=True, help="their answers (jsonl), in that order")
    parser.add_argument("--judgments", nargs="+", required=True, help="every judge's of two policies (jsonl)")
    parser.add_argument("--ratings", nargs="*", required=True, help="every judge's of one policy (jsonl)")
    parser.add_argument("--vibe-check", nargs="+", required=True, help="their answers to it (jsonl)")
    parser.add_argument("--tables", nargs="*", required=True, help="results of other benchmarks (csv)")
    parser.add_argument("--sampled", nargs="*", required=True, help="policies whose completions were ranked")
    parser.add_argument("--paired", nargs="*", required=True, help="policies whose pairs trained another")
    parser.add_argument(
        "--shards", type=json.loads, required=True, help="JSON: how many shards of prompts each split has"
    )
    parser.add_argument("--manifests", nargs="+", required=True, help="the manifests of all models (json)")
    parser.add_argument("--trained", nargs="*", required=True, help="models that were trained")
    section.add(parser, "report")
    args = parser.parse_args(argv)
    args.config, runs = json.loads(args.config), json.loads(args.runs)
    shown = dict.fromkeys(map(naming.run_of, args.policies[1:]))
    args.runs = {run: runs[run] for run in shown if run in runs}
    return args


def main(argv=None):
    args = parse(argv)
    made = files.read_json(args.winrate)
    start, compared = args.policies[0], args.policies[1:]
    questions = fastchat.read_questions(args.questions)
    samples, shards = Path(args.samples), prompts.shards(args.shards)
    pools = [("prompts", files.read_json(path)) for path in args.pool]
    for policy in args.paired:
        for name, step in (("preferences", "pairs of"), ("tokenized", "tokenized pairs of")):
            pools.append((f"{step} {policy}", files.read_json(samples / policy / f"{name}.json")))
    metrics = {name: files.read_json(Path(args.training, name, "metrics.json")) for name in args.trained}
    manifests = {Path(path).stem: files.read_json(path) for path in args.manifests}
    edges, again = contents.rule_edges(
        [
            args.winrate_picture,
            *args.vibe_check,
            *(str(samples / name / "rewards.png") for name in args.sampled),
        ],
        records.origin,
    )
    texts = {
        "start": start,
        "policies": args.policies,
        "questions": [
            {"id": row["question_id"], "category": row["category"], "turns": row["turns"]}
            for row in questions
        ],
        "answers": browsed.answers(args.answers, args.policies, questions),
        "verdicts": browsed.verdicts(args.judgments, questions),
        "ratings": browsed.ratings(args.ratings, questions),
        "samples": [
            {
                "policy": name,
                "given": name not in args.sampled,
                "prompts": browsed.samples(samples / name, shards, args.prompts)
                if name in args.sampled
                else browsed.pairs(samples / name / "preferences.parquet", args.prompts),
            }
            for name in dict.fromkeys([*args.sampled, *args.paired])
        ],
    }
    page = render(
        title="Preference optimization: results",
        summary=(
            f"{len(compared)} {'policy' if len(compared) == 1 else 'policies'}, compared with {start} on "
            f"{made['questions']} questions of MT-Bench by the judge {made['judge']}; "
            f"seed {args.config['seed']}."
        ),
        written=written(args.winrate),
        start=start,
        judge=made["judge"],
        pictures={
            "winrate": contents.picture(args.winrate_picture),
            "sweeps": next(map(contents.picture, args.sweeps_picture), None),
            "drift": next(map(contents.picture, args.drift_picture), None),
        },
        results=contents.results(made),
        over_seeds=contents.over_seeds(made),
        judges=contents.other_judges(made),
        advantages=contents.advantages(made),
        categories=made["categories"],
        tables=[contents.table(path) for path in args.tables],
        sampled=[
            {"name": name, "picture": contents.picture(samples / name / "rewards.png")}
            for name in args.sampled
        ],
        dropped=[row for step, counts in pools for row in contents.dropped(step, counts)],
        measures=contents.MEASURES,
        trainings=contents.trainings(metrics),
        curves=[
            {"name": name, "picture": contents.picture(Path(args.training, name, "training.png"))}
            for name in args.trained
        ],
        vibe_check=vibe_check(args.policies, args.vibe_check),
        runs=list(args.runs),
        differences=contents.differences(args.runs),
        config=yaml.safe_dump(args.config, sort_keys=False, allow_unicode=True),
        graph=Markup(rulegraph.svg(edges, again)) if edges else None,
        models=contents.models(manifests),
        versions=contents.versions(manifests),
        costs=cost_tables(args.logs),
        browsed=texts["samples"],
        packed=browsed.packed(texts),
    )
    # A half of a UTF-16 pair, which JSON files can hold, is no text.
    page = page.encode("utf-8", "replace")
    files.write_text(args.out, page.decode())
    print(f"{len(page) / 1e6:.1f} MB")


if __name__ == "__main__":
    errors.run(main)
