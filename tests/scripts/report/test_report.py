"""The report's page: true to its inputs, harmless whatever models wrote, and usable in a browser."""

import datetime
import itertools
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from report_pages import POLICIES, data_of, make

from measurements.report import experiment
from prefline import files
from prefline.data import tables
from prefline.errors import InputError
from prefline.reporting import browsed, contents, pictures, rulegraph
from scripts.report import write_report


def test_nothing_that_a_model_wrote_is_markup(page):
    text = page.read_text()
    assert text.count("<script") == 2 and "<img src=x" not in text
    assert "49" not in re.sub(r"\d{3,}", "", re.search(r'id="vibe".*?</section>', text, re.S)[0])


def test_nothing_is_fetched(page):
    text = page.read_text()
    assert "default-src 'none'" in text
    assert re.findall(r'(?:src|href)="(?!data:image/png|#)[^"]*"', text) == []


def test_position_bias_and_other_judges_are_shown(tmp_path):
    flags = experiment(tmp_path, POLICIES, 100, lambda kind: kind)
    made = files.read_json(tmp_path / "winrate.json")
    agreed = {"matches": 160, "share": 0.8125, "kappa": None, "opposite": 0.01}
    made["other_judges"] = {"<other>": {"win_rates": made["win_rates"], "agreement": agreed}}
    files.write_json(tmp_path / "winrate.json", made)
    write_report.main([*flags, "--prompts", "5", "--out", str(tmp_path / "report.html")])
    text = (tmp_path / "report.html").read_text()
    bias = made["win_rates"]["dpo-1"]["position_bias"]
    shares = [f"{100 * bias[f'biased_toward_{place}']:.1f} %" for place in ("first", "second")]
    assert ", ".join(shares) in text
    assert '<tr><th>&lt;other&gt;</th><td class="n">81.2 %</td>' in text


def test_other_benchmarks_stand_in_a_table(page, tmp_path):
    text = page.read_text()
    assert "<h3>Benchmarks</h3>" in text
    assert "<tr><td>sft</td><td>gsm8k</td><td>exact_match</td><td>0.1235</td><td>1319</td></tr>" in text
    (tmp_path / "contamination.csv").write_text("benchmark,share\n<b>,1e-05\n")
    table = contents.table(tmp_path / "contamination.csv")
    assert table == {"title": "contamination", "columns": ["benchmark", "share"], "rows": [["<b>", "1e-05"]]}


def test_commands_on_the_page_have_flags_that_exist(page):
    commands = re.findall(r"<code>python -m (tools\.\w+) (--[\w-]+)?", page.read_text())
    assert ("tools.costs", "--logs") in commands
    for tool, flag in commands:
        assert f'"{flag}"' in Path(f"{tool.replace('.', '/')}.py").read_text() or not flag, (tool, flag)


def test_equal_inputs_give_equal_pages(page, tmp_path):
    assert make(tmp_path).read_text() == page.read_text().replace(str(page.parent), str(tmp_path))


def test_every_verdict_is_there_with_both_games(page):
    verdicts = data_of(page)["verdicts"]
    assert [one["models"] for one in verdicts] == [[policy, "sft"] for policy in POLICIES[1:]]
    rows = [json.loads(line) for line in (page.parent / "judgments/dpo-2.jsonl").read_text().splitlines()]
    winners = {"model_1": 1, "model_2": 2, "tie": 0}
    for row in rows:
        made = verdicts[1]["matches"][row["question_id"]][row["turn"] - 1]
        assert made[:2] == [winners[row["g1_winner"]], winners[row["g2_winner"]]]
        assert made[2:] == [row["g1_judgment"], row["g2_judgment"]]


def test_completions_stand_best_first_with_their_roles(page):
    samples = data_of(page)["samples"]
    assert [(one["policy"], one["given"]) for one in samples] == [("sft", False), ("dpo-1", False)]
    for row in samples[0]["prompts"]:
        rewards = [one["reward"] for one in row["completions"]]
        assert rewards == sorted(rewards, reverse=True) and len(rewards) == 5
        assert {one["role"] for one in row["completions"]} == {"chosen", "rejected", None}


def test_a_large_experiment_is_browsed_in_part(tmp_path):
    everything = data_of(make(tmp_path / "all"))["samples"][0]["prompts"]
    some = data_of(make(tmp_path / "some", prompts=3))["samples"][0]["prompts"]
    assert len(some) == 3 and [row["id"] for row in some] == [row["id"] for row in everything[:3]]


def test_samples_of_other_shards_are_refused(page, tmp_path):
    shutil.copytree(page.parent / "samples/sft", tmp_path / "sft")
    with pytest.raises(InputError, match="is in no shard"):
        browsed.samples(tmp_path / "sft", ["test-00000"], 100)


def test_every_judge_every_pair_and_every_rating_is_there(tmp_path):
    flags = experiment(tmp_path, POLICIES, 100, lambda kind: kind)
    rows = [json.loads(line) for line in (tmp_path / "judgments/dpo-1.jsonl").read_text().splitlines()]
    other = [row | {"judge": ["gpt", "pair"], "g1_winner": "error"} for row in rows]
    files.write_jsonl(tmp_path / "gpt.jsonl", other)
    files.write_jsonl(tmp_path / "pair.jsonl", [row | {"model_2": "dpo-2"} for row in rows])
    judged = flags.index("--ratings")
    flags[judged:judged] = [str(tmp_path / "gpt.jsonl"), str(tmp_path / "pair.jsonl")]
    flags.insert(flags.index("--ratings") + 1, str(tmp_path / "rated.jsonl"))
    rated = [
        {
            "question_id": 3,
            "turn": turn,
            "model": "sft",
            "judge": ["gpt", "s"],
            "score": score,
            "judgment": "a",
        }
        for turn, score in ((1, -1), (2, 8.5))
    ]
    files.write_jsonl(tmp_path / "rated.jsonl", rated)
    write_report.main([*flags, "--prompts", "5", "--out", str(tmp_path / "report.html")])
    data = data_of(tmp_path / "report.html")
    (found,) = data["ratings"]
    assert (found["judge"], found["policy"]) == ("gpt", "sft")
    assert found["ratings"][3] == [[None, "a"], [8.5, "a"]] and found["ratings"][2] == [None, None]
    assert [(one["judge"], one["models"]) for one in data["verdicts"]] == [
        ("random", ["dpo-1", "sft"]), ("random", ["dpo-2", "sft"]), ("gpt", ["dpo-1", "sft"]),
        ("random", ["dpo-1", "dpo-2"]),
    ]  # fmt: skip
    assert data["verdicts"][2]["matches"][0][0][0] is None


def test_ids_that_only_differ_in_their_type_keep_their_answers(tmp_path):
    questions = [{"question_id": one, "category": "a", "turns": ["q"]} for one in (1, "1")]
    answers = [{"question_id": one, "choices": [{"turns": [f"answer to {one!r}"]}]} for one in ("1", 1)]
    files.write_jsonl(tmp_path / "answers.jsonl", answers)
    found = browsed.answers([tmp_path / "answers.jsonl"], ["sft"], questions)
    assert found == {"sft": [["answer to 1"], ["answer to '1'"]]}
    row = {
        "turn": 1, "model_1": "a", "model_2": "b", "judge": ["j", "p"], "g1_winner": "tie",
        "g2_winner": "tie", "g2_judgment": "",
    }  # fmt: skip
    judged = [row | {"question_id": one, "g1_judgment": f"of {one!r}"} for one in ("1", 1)]
    files.write_jsonl(tmp_path / "judgments.jsonl", judged)
    (made,) = browsed.verdicts([tmp_path / "judgments.jsonl"], questions)
    assert [turns[0][2] for turns in made["matches"]] == ["of 1", "of '1'"]
    with pytest.raises(InputError, match="question 1 is not among the questions"):
        browsed.verdicts([tmp_path / "judgments.jsonl"], questions[1:])


def test_given_pairs_are_browsed_as_completions_are(tmp_path):
    asked = [{"role": "user", "content": "q"}]
    row = dict.fromkeys(tables.PREFERENCES.names) | {"prompt_id": "b", "split": "train", "messages": asked}
    rows = [
        row | {"chosen": "good", "rejected": "bad", "chosen_reward": 2.0, "rejected_reward": 1.0},
        row | {"chosen": "better", "rejected": "worse"},
        row | {"prompt_id": "a", "split": "test", "rejected": "of a label"},
        row | {"prompt_id": "c", "chosen": "left out", "rejected": "x"},
    ]
    tables.write(tmp_path / "preferences.parquet", rows, tables.PREFERENCES)
    found = browsed.pairs(tmp_path / "preferences.parquet", 2)
    assert [(one["id"], one["split"]) for one in found] == [("a", "test"), ("b", "train")]
    shown = [[(one["text"], one["role"], one["reward"]) for one in row["completions"]] for row in found]
    assert shown == [
        [("of a label", "rejected", None)],
        [
            ("good", "chosen", 2.0), ("bad", "rejected", 1.0),
            ("better", "chosen", None), ("worse", "rejected", None),
        ],
    ]  # fmt: skip


def test_the_page_names_its_days_its_commit_and_the_versions(page):
    text = page.read_text()
    today = datetime.date.today()
    assert f"Win rates of {today}; page of {today}" in text
    assert write_report.commit() is None or f"by the code of commit {write_report.commit()}" in text
    made = {"sft": {"lineage": {"packages": {"torch": "2.0", "peft": None}}}, "dpo-1": {"lineage": {}}}
    made["dpo-2"] = {"lineage": {"packages": {"torch": "2.1"}}}
    assert contents.versions(made) == [
        {"package": "torch", "version": "2.0", "models": ["sft"]},
        {"package": "torch", "version": "2.1", "models": ["dpo-2"]},
    ]


def test_the_table_of_categories_has_intervals(page):
    made = files.read_json(page.parent / "winrate.json")["win_rates"]["dpo-1"]["category"]["math"]
    ends = f"<small>{100 * made['ci_low']:.0f} to {100 * made['ci_high']:.0f}</small>"
    assert f"{100 * made['win_rate_adjusted']:.1f} %{ends}" in page.read_text()


def luminance(colour):
    """Return the relative luminance of WCAG 2 of a colour (numbers from 0 to 1)."""
    parts = [one / 12.92 if one <= 0.04045 else ((one + 0.055) / 1.055) ** 2.4 for one in colour]
    return sum(share * part for share, part in zip((0.2126, 0.7152, 0.0722), parts, strict=True))


def test_the_pale_grey_of_losses_stands_out_in_dark_mode(page):
    text = page.read_text()
    matrix = np.array(re.search(r'feColorMatrix values="([^"]+)"', text)[1].split(), float).reshape(4, 5)
    white, pale, dark = (
        np.array([int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)])
        for colour in ("#FFFFFF", pictures.PALE, re.findall(r"--page: (#\w{6})", text)[1])
    )
    shown = [np.clip(matrix @ [*colour, 1, 1], 0, 1) for colour in (white, pale)]
    assert shown[0][3] < 0.01  # white is the page
    over = shown[1][:3] * shown[1][3] + dark * (1 - shown[1][3])
    assert (luminance(over) + 0.05) / (luminance(dark) + 0.05) > 1.05 / (luminance(pale) + 0.05)


def test_what_differs_between_runs():
    runs = {"a": {"beta": 0.1, "loss_type": "ipo", "seed": 1}, "b": {"beta": 0.2, "eta": 1.0, "seed": 1}}
    assert contents.differences(runs) == [
        {"key": "beta", "cells": ["0.1", "0.2"]},
        {"key": "loss_type", "cells": ["ipo", ""]},
        {"key": "eta", "cells": ["", "1.0"]},
    ]
    assert contents.differences({"a": runs["a"]}) == []


def test_the_rules_of_two_iterations_are_one_graph_with_a_way_back():
    made = {
        "data": None,
        "sft": ("train_sft", ["data"]),
        "samples-0": ("generate", ["sft"]),
        "dpo-1": ("train_policy", ["sft", "samples-0"]),
        "samples-1": ("generate", ["dpo-1"]),
        "dpo-2": ("train_policy", ["dpo-1", "samples-1"]),
        "answers": ("answer", ["dpo-2"]),
        "start_answers": ("answer", ["sft"]),
    }
    edges, again = contents.rule_edges(["answers", "start_answers"], made.get)
    assert again == [("train_policy", "generate")]
    assert set(edges) == {
        ("train_sft", "generate"), ("train_sft", "train_policy"), ("generate", "train_policy"),
        ("train_policy", "answer"), ("train_sft", "answer"),
    }  # fmt: skip


@given(
    st.integers(2, 12).flatmap(lambda n: st.sets(st.tuples(st.integers(0, n), st.integers(0, n)), min_size=1))
)
def test_boxes_of_a_graph_never_overlap(pairs):
    edges = sorted({(f"rule_{min(a, b)}", f"rule_{max(a, b)}") for a, b in pairs if a != b})
    if not edges:
        return
    place = rulegraph.positions(sorted({rule for edge in edges for rule in edge}), edges)
    for (_, (x1, y1)), (_, (x2, y2)) in itertools.combinations(place.items(), 2):
        assert abs(x1 - x2) >= rulegraph.WIDTH or abs(y1 - y2) >= rulegraph.HEIGHT
    for a, b in edges:
        assert place[a][1] > place[b][1]


def test_templates_and_their_like_are_inputs_of_rules():
    rules = "".join(path.read_text() for path in Path("rules").glob("*.smk"))
    read = [path.name for path in Path("scripts").rglob("*") if path.suffix in (".j2", ".css", ".js")]
    # The cards' templates are named without their suffix.
    assert len(read) == 9
    assert all(name in rules or f'"{name.removesuffix(".md.j2")}"' in rules for name in read)


def test_sweeps_are_shown_where_a_run_has_one(page, tmp_path):
    assert "<h3>Sweeps</h3>" in page.read_text()
    flags = experiment(tmp_path, POLICIES, 100, lambda kind: kind)
    place = flags.index("--sweeps-picture")
    del flags[place + 1]
    write_report.main([*flags, "--prompts", "5", "--out", str(tmp_path / "report.html")])
    assert "Sweeps" not in (tmp_path / "report.html").read_text()
