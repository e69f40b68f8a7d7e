"""A judge is asked what FastChat asks, and its verdicts give the figures that FastChat prints."""

import contextlib
import io
import re
from types import SimpleNamespace

import pytest
from judging_mt_bench import QUESTIONS, SAID, answer_rows, mine

from prefline import files


def shown(path, **options):
    """{model: {column: number}} of the last table that FastChat's show_result prints for a file."""
    show_result = pytest.importorskip("fastchat.llm_judge.show_result")
    args = SimpleNamespace(
        bench_name="mt_bench", input_file=str(path), model_list=None, baseline_model=None, judge_model="x"
    )
    vars(args).update(options)
    single = options.get("mode") == "single"
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        (show_result.display_result_single if single else show_result.display_result_pairwise)(args)
    return out.getvalue()


def table(text):
    lines = text.strip().splitlines()
    head = next(number for number, line in enumerate(lines) if "win_rate_adjusted" in line)
    columns = lines[head].split()
    rows = [line.split() for line in lines[head + 1 :] if len(line.split()) == len(columns) + 1]
    return {row[0]: dict(zip(columns, map(float, row[1:]), strict=True)) for row in rows}


@pytest.mark.filterwarnings("ignore")
def test_fastchats_own_figures_are_ours_pairwise(start, judge, tmp_path):
    from prefline.judging import winrate

    server = start(lambda payload: "?" if "<dpo-1:81:1>" in str(payload["messages"]) else mine(payload))
    rows = {}
    pairs = [("dpo-1", "sft"), ("rebel-1", "sft"), ("dpo-1", "rebel-1")]
    for pair in pairs:
        rows[pair] = judge(server, *pair)
    merged = tmp_path / "stand_in_pair.jsonl"
    files.write_jsonl(merged, [row for pair in pairs for row in rows[pair]])

    baseline = table(shown(merged, baseline_model="sft"))
    assert set(baseline) == {"dpo-1", "rebel-1"}
    everything = table(shown(merged))
    assert set(everything) == {"dpo-1", "rebel-1", "sft"}
    for found, chosen in [
        *[(baseline[name], winrate.of_model([*rows[name, "sft"]], name)) for name in baseline],
        *[
            (everything[name], winrate.of_model([row for pair in pairs for row in rows[pair]], name))
            for name in everything
        ],
    ]:
        ours = winrate.summary(chosen)
        assert [found[key] for key in ("win", "tie", "loss")] == [ours[key] for key in ("win", "tie", "loss")]
        for key in ("win_rate", "loss_rate", "win_rate_adjusted"):
            assert found[key] == pytest.approx(ours[key], abs=5e-7)
    turn_2 = tmp_path / "turn_2.jsonl"
    files.write_jsonl(turn_2, [row for row in rows["dpo-1", "sft"] if row["turn"] == 2])
    ours = winrate.summary([row for row in rows["dpo-1", "sft"] if row["turn"] == 2])
    assert table(shown(turn_2, baseline_model="sft"))["dpo-1"]["win"] == ours["win"]


@pytest.mark.filterwarnings("ignore")
def test_fastchats_own_figures_are_ours_single(start, judge, tmp_path):
    server = start(lambda payload: "?" if "<dpo-1:81:1>" in str(payload["messages"]) else mine(payload))
    rows = [row for name in ("dpo-1", "sft") for row in judge(server, name, None)]
    assert [row["score"] for row in rows].count(-1) == 2  # turn 2 shows the answer to turn 1, too
    merged = tmp_path / "stand_in_single.jsonl"
    files.write_jsonl(merged, rows)
    text = shown(merged, mode="single")
    for turn in (1, 2):
        for name in ("dpo-1", "sft"):
            scores = [
                row["score"]
                for row in rows
                if row["model"] == name and row["turn"] == turn and row["score"] != -1
            ]
            found = re.search(rf"{name}\s+{turn}\s+([\d.]+)", text)
            assert float(found[1]) == pytest.approx(sum(scores) / len(scores), abs=1e-5)


def fastchats_rows(monkeypatch, prompts_file, mode):
    """What FastChat's gen_judgment makes of the same files, with the same judge in the place of its API."""
    common = pytest.importorskip("fastchat.llm_judge.common")
    gen_judgment = pytest.importorskip("fastchat.llm_judge.gen_judgment")
    monkeypatch.setattr(
        common,
        "chat_completion_openai",
        lambda model, conv, **_: mine({"messages": conv.to_openai_api_messages()}),
    )
    pairwise = mode == "pairwise"
    make_judges = gen_judgment.make_judge_pairwise if pairwise else gen_judgment.make_judge_single
    make_match = gen_judgment.make_match if pairwise else gen_judgment.make_match_single
    play = gen_judgment.play_a_match_pair if pairwise else gen_judgment.play_a_match_single
    judges = make_judges("gpt-4", common.load_judge_prompts(prompts_file))
    said = {name: {row["question_id"]: row for row in answer_rows(turns)} for name, turns in SAID.items()}
    right = {question["question_id"]: ["right 1", "right 2"] for question in QUESTIONS}
    references = {"gpt-4": {row["question_id"]: row for row in answer_rows(right)}}
    math = [question for question in QUESTIONS if question["category"] in common.NEED_REF_CATS]
    rest = [question for question in QUESTIONS if question not in math]
    rows = []
    for questions, name, known in ((rest, "default", None), (math, "math", references)):
        for turns, multi_turn in (("", False), ("-mt", True)):
            judge = judges[name + turns]
            matches = make_match(questions, ["dpo-1"], said, judge, "sft", known, multi_turn=multi_turn)
            rows += [play(match, output_file=None) for match in matches]
    return {(row["question_id"], row["turn"]): row for row in rows}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("mode", ["pairwise", "single"])
def test_what_is_asked_and_read_is_what_fastchat_asks_and_reads(start, judge, monkeypatch, mode):
    theirs = fastchats_rows(monkeypatch, "data/mt_bench/judge_prompts.jsonl", mode)
    ours = judge(start(), "dpo-1", "sft" if mode == "pairwise" else None)
    assert len(ours) == len(theirs) == 20
    for row in ours:
        other = dict(theirs[row["question_id"], row["turn"]])
        del other["tstamp"]
        assert list(row) == list(other)
        assert row | {"judge": ["gpt-4", row["judge"][1]]} == other | {"judge": list(other["judge"])}
