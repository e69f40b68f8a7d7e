"""A language model as MT-Bench's judge: each verdict asked for once, none lost, doubled or made up."""

import json
from pathlib import Path

import pytest
import stand_in
from judging_mt_bench import QUESTIONS, SAID, answer_rows, mine, verdicts_asked, write_jsonl

from prefline.errors import InputError
from prefline.judging import prompts

FAULTS = [*stand_in.FAULTS, {"choices": [{"finish_reason": "stop"}]}]


# Calls, counted.


def test_each_game_of_a_pair_is_asked_once_and_a_second_run_asks_nobody(start, judge):
    server = start()
    rows = judge(server)
    assert len(rows) == 20 and len(server.asked) == 1 + 40
    assert len(set(verdicts_asked(server))) == 40
    assert all(asked["temperature"] == 0 for asked in server.asked)
    assert judge("http://127.0.0.1:9/v1") == rows  # nobody is there


def test_no_fault_loses_or_doubles_a_verdict(start, judge, tmp_path):
    calm = judge(start(), out=tmp_path / "calm.jsonl", journal=tmp_path / "other")
    server = start()
    server.faults = [fault for pair in zip(FAULTS, [None] * len(FAULTS), strict=True) for fault in pair]
    assert judge(server, timeout=5) == calm
    asked = verdicts_asked(server)
    assert len(asked) == 40 + len(FAULTS) and len(set(asked)) == 40
    journal = [line for path in (tmp_path / "journal").rglob("*.jsonl") for line in path.open()]
    assert len(journal) == 40


def test_a_server_that_fails_to_the_last_fails_the_job_and_the_next_goes_on(start, judge):
    server = start()
    server.faults = [(500, {})] * 6
    with pytest.raises(InputError, match=r"1 of 40 calls got no answer, such as: .* status 500"):
        judge(server, batch_size=1)
    asked = len(server.asked)
    assert len(judge(server)) == 20
    assert len(server.asked) == asked + 2  # the trial, and the one that is missing


def test_what_a_server_refuses_is_an_error_that_is_said_and_asked_again_by_the_next_job(start, judge, capsys):
    server = start()
    server.faults = [(400, {})]
    rows = judge(server, batch_size=1)
    assert [row["g1_winner"] for row in rows].count("error") == 1
    assert "question 81, turn 1, game 1: refused: " in capsys.readouterr().out
    assert "error" not in {row[game] for row in judge(server) for game in ("g1_winner", "g2_winner")}


# What is asked, and the marks.


def test_the_judge_sees_both_turns_the_references_it_needs_and_the_answers_in_both_orders(start, judge):
    server = start()
    judge(server)
    asked = verdicts_asked(server)
    turn_1 = [text for text in asked if "<dpo-1:81:1>" in text and "<dpo-1:81:2>" not in text]
    assert len(turn_1) == 2
    places = [text.index("<dpo-1:81:1>") < text.index("<sft:81:1>") for text in turn_1]
    assert sorted(places) == [False, True]
    assert all("right" not in text for text in asked if ":81:" in text)  # writing
    second = next(text for text in asked if "<sft:82:2>" in text)  # math
    assert all(part in second for part in ("right 1", "right 2", "<sft:82:1>", "First 1?", "Second 1?"))
    assert "right 2" not in next(text for text in asked if "<sft:82:1>" in text and ":2>" not in text)


def test_a_template_of_the_users_own_is_filled_as_fastchat_fills_it(start, judge, tmp_path):
    rows = [json.loads(line) for line in Path("data/mt_bench/judge_prompts.jsonl").read_text().splitlines()]
    rows[0]["prompt_template"] = "{{x}} {question}|{answer_a}|{answer_b}"
    rows[0]["system_prompt"] = "Be short: {not a place}."
    path = write_jsonl(tmp_path / "prompts.jsonl", rows)
    server = start()
    judge(server, judge_prompts=path)
    mine = [asked["messages"] for asked in server.asked if "{x}" in asked["messages"][-1]["content"]]
    assert [
        {"role": "system", "content": "Be short: {not a place}."},
        {"role": "user", "content": "{x} First 0?|<dpo-1:81:1>|<sft:81:1>"},
    ] in mine


def test_what_says_nothing_is_asked_again_and_then_an_error_never_a_tie(start, judge, capsys):
    tries = []

    def says(payload):
        text = payload["messages"][-1]["content"]
        if "<dpo-1:81:1>" not in text or ":81:2>" in text:
            return mine(payload)
        tries.append((payload["temperature"], payload["seed"]))
        return "[[A]] and [[B]] are both fine."

    server = start(says)
    rows = judge(server)
    assert (rows[0]["g1_winner"], rows[0]["g2_winner"]) == ("error", "error")
    assert rows[0]["g1_judgment"] == "[[A]] and [[B]] are both fine."
    assert sorted(temperature for temperature, _ in tries) == [0, 0] + [0.7] * 6
    assert len(set(tries)) == 8
    said = capsys.readouterr().out
    assert "38 verdicts, 2 errors" in said and "question 81, turn 1, game 1: '[[A]] and [[B]]" in said
    asked = len(server.asked)
    assert judge(server) == rows and len(server.asked) == asked


def test_a_second_try_that_can_be_read_counts(start, judge):
    server = start(
        lambda payload: (
            "Hm."
            if payload["temperature"] == 0 and "<dpo-1:81" in payload["messages"][-1]["content"]
            else mine(payload)
        )
    )
    assert "error" not in {row["g1_winner"] for row in judge(server)}


def test_a_judge_that_thinks_aloud_is_read_after_its_reasoning(start, judge, tmp_path):
    def thinks(payload):
        return f"<think>If A is better I must output [[A]], else [[B]].</think>\n{mine(payload)}"

    def winners(server, name, **flags):
        return [row["g1_winner"] for row in judge(server, journal=tmp_path / name, **flags)]

    thinking = start(thinks)
    assert winners(thinking, "thinking") == winners(start(mine), "plain")
    assert set(winners(thinking, "thinking", verdicts="fastchat")) == {"model_1"}


def test_a_judge_that_never_gives_a_verdict_is_one_sentence(start, judge, tmp_path):
    server = start(lambda payload: "I cannot judge this.")
    with pytest.raises(InputError, match=r"40 of 40 answers have no verdict, such as .*I cannot judge this"):
        judge(server)
    assert len(server.asked) == 1 + 40 and not (tmp_path / "dpo-1-sft.jsonl").exists()


# Bad input.


def test_input_that_no_judge_can_use_is_one_sentence_before_any_call(start, judge, tmp_path):
    server = start()
    rows, sft = answer_rows(SAID["dpo-1"]), tmp_path / "sft.jsonl"

    def refuse(sentence, **flags):
        with pytest.raises(InputError, match=sentence):
            judge(server, **flags)

    refuse("no answer to question 90", answers=[write_jsonl(tmp_path / "a.jsonl", rows[:-1]), sft])
    refuse(
        "line 11: question 81 comes twice", answers=[write_jsonl(tmp_path / "b.jsonl", [*rows, rows[0]]), sft]
    )
    refuse(
        "line 11: question 81 comes twice",
        questions=write_jsonl(tmp_path / "q.jsonl", [*QUESTIONS, QUESTIONS[0]]),
    )
    few = answer_rows({82: ["right"]})
    refuse(
        "no reference answer to question 82, turn 2, .* category math",
        references=write_jsonl(tmp_path / "r.jsonl", few),
    )
    three = [QUESTIONS[0] | {"turns": ["a", "b", "c"]}]
    said = write_jsonl(tmp_path / "s.jsonl", answer_rows({81: ["a", "b", "c"]}))
    refuse(
        "question 81 has 3 turns",
        questions=write_jsonl(tmp_path / "t.jsonl", three),
        answers=[said, said],
    )
    assert not server.asked


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (
            {"prompt_template": "{question} {answer_a}"},
            "'pair-v2' has places for answer_a, question; it needs answer_a, answer_b, question",
        ),
        ({"prompt_template": "{question} {answer_a} {answer_b} {ref}"}, "'pair-v2' has places for .*ref"),
        ({"prompt_template": "{question"}, "'pair-v2' is no format string"),
        ({"output_format": "[[rating]]"}, "'pair-v2' has the type 'pairwise' and the output_format"),
        ({"name": "pair-v3"}, "has no prompt 'pair-v2'"),
    ],
)
def test_bad_prompts_are_named(tmp_path, change, sentence):
    rows = [json.loads(line) for line in Path("data/mt_bench/judge_prompts.jsonl").read_text().splitlines()]
    path = write_jsonl(tmp_path / "prompts.jsonl", [rows[0] | change, *rows[1:]])
    with pytest.raises(InputError, match=sentence):
        prompts.load(path, "pairwise")
