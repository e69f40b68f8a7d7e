"""Score a policy by judgments in arena-hard-auto's form, with and without the control of style.

A judgment holds two games, with the baseline's answer first and then the policy's; a clear verdict (A>>B)
counts three times, as in arena-hard-auto. The score is the policy's mean. The style-controlled score is its
chance to win against the baseline in a logistic regression over the games of all models. The regression has
one strength for each model and four weights for differences of style: in length, and in headers, list items
and bold parts per token. As in arena-hard-auto, the chance is that at the mean difference of style of all
games. Arena-Hard v2.0 has a baseline for each category of questions: each category is scored as if it were
alone.

Departures from arena-hard-auto: the scores are those of all games, not the median of the bootstrap; the
bootstrap draws questions, as the games about one are not independent; and the seed is the experiment's.

    python -m scripts.benchmarks.score_arena_hard --policy dpo-1 --benchmark arena \\
        --judgments data/model_judgment/gpt-4.1 --answers data/model_answer --baseline o3-mini-2025-01-31 \\
        --bootstrap-samples 1000 --seed 1 --out results/benchmarks/arena/dpo-1.json

    writes  score and style_controlled_score, in percent; with a baseline for each category, such as
            '{"creative_writing": "gemini-2.0-flash-001", "hard_prompt": "o3-mini-2025-01-31"}',
            creative_writing/score, …
"""

from pathlib import Path

import numpy as np

from prefline import errors, seeds
from prefline.config import schema, section
from prefline.data import benchmark_results
from prefline.errors import InputError

VERSION = "v2.0 file forms"
CLEAR = 3
# {verdict: (score of the answer shown as A, weight)}
VERDICTS = {
    "A>>B": (1.0, CLEAR), "A>B": (1.0, 1), "A=B": (0.5, 1), "A<B": (0.0, 1), "A<<B": (0.0, CLEAR),
    "B>>A": (0.0, CLEAR), "B>A": (0.0, 1), "B=A": (0.5, 1), "B<A": (1.0, 1), "B<<A": (1.0, CLEAR),
}  # fmt: skip
MARKDOWN = ("header_count", "list_count", "bold_count")
# Keeps the strength of a model that wins every game finite; too small to be seen in any other.
RIDGE = 1e-4
STEPS = 50


def read_battles(folder, baselines):
    """Return ({category: [battle]}, number undecided) of a folder's judgments.

    baselines: {category (str): model}, or {None: model} for all together. A battle: (model, question, score,
    weight). Raises InputError for a folder without judgments, and for a judgment of another category, against
    another baseline or with an unknown verdict.
    """
    paths = sorted(Path(folder).glob("*.jsonl"))
    if not paths:
        raise InputError(
            f"{folder}: holds no judgments (MODEL.jsonl); arena-hard-auto's gen_judgment.py makes them"
        )
    battles, undecided = {category: [] for category in baselines}, 0
    for path in paths:
        for where, row in benchmark_results.read_list(path):
            category = None if None in baselines else row.get("category")
            if category not in baselines:
                raise InputError(
                    f"{where}: `baseline` has no model for its category {category!r}, only for "
                    f"{', '.join(baselines)}"
                )
            baseline = baselines[category]
            if row.get("baseline", baseline) != baseline:
                raise InputError(
                    f"{where}: is against {row['baseline']!r}, not the baseline {baseline!r}; if categories "
                    "have different ones, write baseline: {CATEGORY: MODEL}"
                )
            verdicts = [(game or {}).get("score") for game in row.get("games") or [None]]
            if len(verdicts) != 2 or None in verdicts:
                undecided += 1
                continue
            unknown = [verdict for verdict in verdicts if verdict not in VERDICTS]
            if unknown:
                raise InputError(f"{where}: unknown verdict {unknown[0]!r}; known: {', '.join(VERDICTS)}")
            (first, first_weight), (second, second_weight) = (VERDICTS[verdict] for verdict in verdicts)
            battles[category].append((row["model"], row["uid"], 1 - first, first_weight))
            battles[category].append((row["model"], row["uid"], second, second_weight))
    return battles, undecided


def read_style(folder):
    """Return {model: {question: [tokens, headers, list items, bold parts]}} of the answers in a folder.

    Raises InputError for answers without these counts.
    """
    style = {}
    for path in sorted(Path(folder).glob("*.jsonl")):
        for where, row in benchmark_results.read_list(path):
            counts = row.get("metadata") or {}
            if not {"token_len", *MARKDOWN} <= counts.keys():
                raise InputError(
                    f"{where}: no metadata with token_len, {', '.join(MARKDOWN)}; arena-hard-auto's "
                    "utils/add_markdown_info.py adds them"
                )
            values = [counts["token_len"]] + [sum(counts[name].values()) for name in MARKDOWN]
            style.setdefault(row["model"], {})[row["uid"]] = values
    return style


def style_features(battles, style, baseline):
    """Return the differences of style in each battle: float64 (battles, 4), of mean 0 and deviation 1.

    First the length, (a - b) / (a + b); then each kind of markdown per token, (a - b) / (a + b + 1).
    Raises InputError for a battle whose answers are not there.
    """
    pairs = []
    for model, question, _, _ in battles:
        for name in (model, baseline):
            if question not in style.get(name, {}):
                raise InputError(f"the answers have none of {name!r} to the question {question!r}")
        pairs.append((style[model][question], style[baseline][question]))
    counts = np.array(pairs, dtype=np.float64)
    tokens, density = counts[:, :, :1], counts[:, :, 1:] / (counts[:, :, :1] + 1)
    a, b = density[:, 0], density[:, 1]
    length = (tokens[:, 0] - tokens[:, 1]) / np.maximum(tokens[:, 0] + tokens[:, 1], 1.0)
    features = np.concatenate([length, (a - b) / (a + b + 1)], axis=1)
    weights = np.array([battle[3] for battle in battles], dtype=np.float64)
    features -= weights @ features / weights.sum()
    spread = np.sqrt(weights @ features**2 / max(weights.sum() - 1, 1))
    return features / np.where(spread > 1e-12, spread, 1.0)


def fit(features, scores, weights):
    """Return coefficients (float64) of a logistic regression by Newton's method.

    features: float64 (battles, coefficients); scores: float64 from 0 to 1; weights: float64.
    """
    coefficients = np.zeros(features.shape[1])
    for _ in range(STEPS):
        chances = 1 / (1 + np.exp(-np.clip(features @ coefficients, -30, 30)))
        gradient = features.T @ (weights * (scores - chances)) - RIDGE * coefficients
        curvature = (features.T * (weights * chances * (1 - chances))) @ features
        step = np.linalg.solve(curvature + RIDGE * np.eye(len(coefficients)), gradient)
        coefficients += np.clip(step, -1, 1)
        if np.abs(step).max() < 1e-10:
            break
    return coefficients


def scores_of(policy, battles, features, draws):
    """Return {"score": (percent, standard error), "style_controlled_score": the same} of a policy.

    features: of style_features; draws: how often each question counts, an int array (samples, questions) in
    the order of their names, whose spread of scores is the standard error.
    """
    models = sorted({battle[0] for battle in battles})
    questions = {
        name: number for number, name in enumerate(sorted({battle[1] for battle in battles}, key=str))
    }
    own = np.array([battle[0] == policy for battle in battles])
    rows = np.array([questions[battle[1]] for battle in battles])
    scores = np.array([battle[2] for battle in battles], dtype=np.float64)
    weights = np.array([battle[3] for battle in battles], dtype=np.float64)
    strengths = np.array([[float(battle[0] == model) for model in models] for battle in battles])
    everything = np.concatenate([strengths, features], axis=1)

    def plain(times):
        drawn = weights * times * own
        return 100 * (drawn @ scores) / drawn.sum() if drawn.any() else np.nan

    def controlled(times):
        strength = fit(everything, scores, weights * times)[models.index(policy)]
        return 100 / (1 + np.exp(-strength))

    found = {}
    for name, value in (("score", plain), ("style_controlled_score", controlled)):
        resampled = [value(times[rows]) for times in draws]
        found[name] = (value(np.ones(len(rows))), float(np.nanstd(resampled, ddof=1)))
    return found


def main(argv=None):
    parser = section.parser(__doc__)
    parser.add_argument("--policy", required=True, help="the policy's name, `model` of its judgments")
    parser.add_argument("--benchmark", required=True, help="its name in the config")
    section.add(parser, "benchmarks.NAME", *schema.kinds("benchmarks.NAME")["arena_hard"])
    section.add(parser, "seed")
    parser.add_argument("--out", required=True, help="results (json)")
    args = parser.parse_args(argv)

    baselines = args.baseline if isinstance(args.baseline, dict) else {None: args.baseline}
    categories, undecided = read_battles(args.judgments, baselines)
    style = read_style(args.answers)
    generator = np.random.default_rng(seeds.derive(args.seed, "arena_hard"))
    rows, notes = [], [f"{undecided} judgments without two verdicts count nowhere"] if undecided else []
    for category, battles in categories.items():
        asked = {battle[1] for battle in battles}
        own = {battle[1] for battle in battles if battle[0] == args.policy}
        if not own:
            notes.append(f"no verdict on {args.policy} in the category {category}")
            continue
        features = style_features(battles, style, baselines[category])
        draws = generator.multinomial(len(asked), np.full(len(asked), 1 / len(asked)), args.bootstrap_samples)
        settings = {
            "judge": Path(args.judgments).name,
            "baseline": baselines[category],
            "bootstrap_samples": args.bootstrap_samples,
            "models": len({battle[0] for battle in battles}),
        }
        for name, value in scores_of(args.policy, battles, features, draws).items():
            named = name if category is None else f"{category}/{name}"
            rows.append(benchmark_results.metric(named, *value, len(own), settings))
    if not rows:
        raise InputError(f"{args.judgments}: holds no verdict on {args.policy!r}")
    benchmark_results.write(args.out, args.policy, args.benchmark, "arena-hard-auto", VERSION, rows, notes)


if __name__ == "__main__":
    errors.run(main)
