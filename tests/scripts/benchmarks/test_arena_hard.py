"""Arena-Hard's scores against cases worked by hand and a simulation whose truth is known."""

import json
import math

import numpy as np
import pytest

from prefline import files
from prefline.errors import InputError
from scripts.benchmarks import score_arena_hard


def metadata(tokens, headers=0, items=0, bold=0):
    return {
        "token_len": tokens,
        "header_count": {"h1": headers, "h2": 0},
        "list_count": {"ordered": items, "unordered": 0},
        "bold_count": {"**": bold, "__": 0},
    }


def games(verdicts):
    return {"baseline": "base", "games": [verdict and {"score": verdict} for verdict in verdicts]}


def write(folder, judgments, answers):
    """The files of {model: {uid: (verdict 1, verdict 2)}} and {model: {uid: metadata}}."""
    for kind, models in (("judgment", judgments), ("answer", answers)):
        (folder / kind).mkdir(exist_ok=True)
        for model, rows in models.items():
            made = [
                {"uid": uid, "model": model} | ({"metadata": row} if kind == "answer" else games(row))
                for uid, row in rows.items()
            ]
            text = "".join(json.dumps(row) + "\n" for row in made)
            (folder / kind / f"{model}.jsonl").write_text(text)


def score(folder, policy="dpo-1", samples=20, baseline="base"):
    values = {
        "policy": policy,
        "benchmark": "arena",
        "judgments": folder / "judgment",
        "answers": folder / "answer",
        "baseline": baseline,
        "bootstrap-samples": samples,
        "seed": 1,
        "out": folder / "out.json",
    }
    score_arena_hard.main([f"--{name}={value}" for name, value in values.items()])
    result = files.read_json(folder / "out.json")
    return {one["metric"]: one for one in result["metrics"]}, result["notes"]


def test_a_score_worked_by_hand(tmp_path):
    """Game 1 has the baseline as A, game 2 the policy; a clear verdict counts three times.

    q1: B>A is a win, A>>B three: 4 of 4. q2: A=B a half, B>A a loss: 0.5 of 2. q3: A>>B is three losses,
    A>B a win: 1 of 4. q4 has no second verdict. Together 5.5 of 10. All answers are of one style, so that
    the controlled score is the same.
    """
    verdicts = {"q1": ("B>A", "A>>B"), "q2": ("A=B", "B>A"), "q3": ("A>>B", "A>B"), "q4": ("A>B", None)}
    same = {uid: metadata(100) for uid in verdicts}
    write(tmp_path, {"dpo-1": verdicts}, {"dpo-1": same, "base": same})
    found, notes = score(tmp_path)
    assert found["score"]["value"] == pytest.approx(55)
    assert found["style_controlled_score"]["value"] == pytest.approx(55, abs=0.01)
    assert found["score"]["n"] == 3
    assert found["score"]["stderr"] > 0
    assert notes == ["1 judgments without two verdicts count nowhere"]
    assert score(tmp_path)[0] == found


def test_control_finds_the_strength_that_style_hides(tmp_path):
    """Two models that would win half of the games at equal length; one of them writes twice as much.

    Long answers win more: log-odds 2 for each (a - b) / (a + b), which is 1/3 for the long model.
    """
    generator = np.random.default_rng(0)
    judgments, answers = {"long": {}, "short": {}}, {"long": {}, "short": {}, "base": {}}
    for number in range(1500):
        uid = f"q{number}"
        answers["base"][uid] = metadata(100)
        for model, mean in (("long", 200), ("short", 100)):
            tokens = int(mean * math.exp(generator.normal(0, 0.5)))
            answers[model][uid] = metadata(tokens)
            chance = 1 / (1 + math.exp(-2 * (tokens - 100) / (tokens + 100)))
            wins = generator.random(2) < chance
            judgments[model][uid] = ("B>A" if wins[0] else "A>B", "A>B" if wins[1] else "B>A")
    write(tmp_path, judgments, answers)
    long, short = score(tmp_path, "long", samples=3)[0], score(tmp_path, "short", samples=3)[0]
    assert long["score"]["value"] > 60
    # Both are as strong as each other once length is accounted for.
    difference = long["style_controlled_score"]["value"] - short["style_controlled_score"]["value"]
    assert abs(difference) < 5
    assert long["style_controlled_score"]["value"] < long["score"]["value"]


def test_the_standard_error_is_that_of_questions(tmp_path):
    """Two equal games on each question tell no more than one: the error of a mean of 400 fair coins."""
    generator = np.random.default_rng(1)
    verdicts = {
        f"q{number}": ("B>A", "A>B") if generator.random() < 0.5 else ("A>B", "B>A") for number in range(400)
    }
    same = {uid: metadata(100) for uid in verdicts}
    write(tmp_path, {"dpo-1": verdicts}, {"dpo-1": same, "base": same})
    found, _ = score(tmp_path, samples=200)
    assert found["score"]["stderr"] == pytest.approx(2.5, rel=0.2)
    assert found["style_controlled_score"]["stderr"] == pytest.approx(2.5, rel=0.2)


def test_a_model_that_always_wins_has_a_finite_score(tmp_path):
    verdicts = {f"q{number}": ("B>>A", "A>>B") for number in range(5)}
    same = {uid: metadata(10 + number, items=number) for number, uid in enumerate(verdicts)}
    write(tmp_path, {"dpo-1": verdicts}, {"dpo-1": same, "base": same})
    assert 99 < score(tmp_path)[0]["style_controlled_score"]["value"] <= 100


def test_bad_input_is_one_sentence(tmp_path):
    verdicts, same = {"q1": ("A>B", "B>A")}, {"q1": metadata(10)}
    with pytest.raises(InputError, match="holds no judgments"):
        score(tmp_path)
    write(tmp_path, {"dpo-1": verdicts}, {"dpo-1": same})
    with pytest.raises(InputError, match="the answers have none of 'base' to the question 'q1'"):
        score(tmp_path)
    with pytest.raises(InputError, match="is against 'base', not the baseline 'other'"):
        score(tmp_path, baseline="other")
    with pytest.raises(InputError, match="holds no verdict on 'sft'"):
        score(tmp_path, "sft")
    write(tmp_path, {"dpo-1": {"q1": ("A>B", "A>C")}}, {"dpo-1": same, "base": same})
    with pytest.raises(InputError, match="line 1: unknown verdict 'A>C'"):
        score(tmp_path)
    write(tmp_path, {"dpo-1": verdicts}, {"dpo-1": {"q1": {}}, "base": same})
    with pytest.raises(InputError, match=r"dpo-1\.jsonl, line 1: no metadata with token_len"):
        score(tmp_path)


def test_a_baseline_for_each_category(tmp_path):
    """Each category has the scores that it has alone, and its own baseline's style."""
    verdicts = {"hard": {"q1": ("B>A", "A>>B"), "q2": ("A>B", "B>A")}, "writing": {"q3": ("A=B", "A>B")}}
    judged = [
        {"uid": uid, "model": "dpo-1", "category": category, "baseline": f"of {category}"}
        | {"games": games(pair)["games"]}
        for category, rows in verdicts.items()
        for uid, pair in rows.items()
    ]
    styles = {
        "dpo-1": {"q1": metadata(20), "q2": metadata(50, headers=3), "q3": metadata(90, items=2)},
        "of hard": {"q1": metadata(80), "q2": metadata(10)},
        "of writing": {"q3": metadata(40)},
    }
    write(tmp_path, {}, styles)
    files.write_jsonl(tmp_path / "judgment" / "dpo-1.jsonl", judged)
    found, notes = score(tmp_path, baseline=json.dumps({name: f"of {name}" for name in verdicts}))
    assert notes == [] and len(found) == 4
    for category, rows in verdicts.items():
        alone = tmp_path / category
        alone.mkdir()
        write(alone, {"dpo-1": rows}, {"dpo-1": styles["dpo-1"], "base": styles[f"of {category}"]})
        for name, one in score(alone)[0].items():
            assert found[f"{category}/{name}"]["value"] == one["value"]
            assert found[f"{category}/{name}"]["n"] == len(rows)
    with pytest.raises(InputError, match=r"is against 'of hard'.*\{CATEGORY: MODEL\}"):
        score(tmp_path, baseline="of writing")
    with pytest.raises(InputError, match=r"no model for its category 'hard', only for writing"):
        score(tmp_path, baseline='{"writing": "of writing"}')
