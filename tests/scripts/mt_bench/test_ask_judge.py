"""A language model as MT-Bench's judge: each verdict asked for once, none lost, doubled or made up."""

import contextlib
import functools
import io
import json
import re
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from stand_in import StandIn, endpoint

from prefline import files
from prefline.config import endpoints
from prefline.errors import InputError
from prefline.judging import prompts, verdicts
from prefline.servers import conversation
from prefline.servers.budget import Meter, OverBudget
from prefline.servers.client import Client
from prefline.servers.endpoint import Endpoint
from scripts.mt_bench import ask_judge, judging_costs

PACE = {"attempts": 6, "first_wait": 0.01, "longest_wait": 0.05}
CATEGORIES = ["writing", "math", "coding", "stem", "reasoning"]
QUESTIONS = [
    {"question_id": 81 + n, "category": CATEGORIES[n % 5], "turns": [f"First {n}?", f"Second {n}?"]}
    for n in range(10)
]
FAULTS = [
    (429, {"Retry-After": "0"}),
    (500, {}),
    (503, {}),
    "hang",
    "disconnect",
    "truncated JSON",
    "no choices",
    "two choices",
    "aborted",
    [],
    {"choices": [{"finish_reason": "stop"}]},
]


def answers(model, text):
    return {
        question["question_id"]: [text(question["question_id"], turn) for turn in (1, 2)]
        for question in QUESTIONS
    }


SAID = {
    name: answers(name, lambda question, turn, name=name: f"<{name}:{question}:{turn}>")
    for name in ("dpo-1", "rebel-1", "sft")
}


def mine(payload):
    """Who a consistent judge prefers: by hash of the two names and the match, from the text it is asked."""
    text = payload["messages"][-1]["content"]
    found = re.findall(r"<([\w-]+):(\d+):(\d)>", text)
    if not found:
        return "Yes."
    if len({name for name, _, _ in found}) == 1:  # a rating
        return f"Rating: [[{1 + int(found[-1][1]) % 10}]]"
    (first, question, turn), (second, *_) = found[0], found[-1]
    number = (int(question) * 7 + int(turn) * 3 + sum(map(ord, min(first, second)))) % 5
    if number == 0:
        return "They are alike. [[C]]"
    if number == 1:
        return "The first is better. [[A]]"
    better = min(first, second) if number < 4 else max(first, second)
    return f"I prefer one. [[{'A' if better == first else 'B'}]]"


@pytest.fixture
def start():
    started = []

    def make(says=mine, **options):
        started.append(StandIn(says=says, **{"name": "judge"} | options))
        return started[-1]

    yield make
    for stand_in in started:
        stand_in.close()


def write_jsonl(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def answer_rows(said):
    return [{"question_id": name, "choices": [{"turns": turns}]} for name, turns in said.items()]


@pytest.fixture
def judge(tmp_path, monkeypatch):
    """judge(server, **flags) -> the rows of a run of the script, on the answers in SAID."""
    monkeypatch.setattr(conversation, "Client", functools.partial(Client, **PACE))
    write_jsonl(tmp_path / "question.jsonl", QUESTIONS)
    references = {question["question_id"]: ["right 1", "right 2"] for question in QUESTIONS}
    write_jsonl(tmp_path / "reference.jsonl", answer_rows(references))
    for name, said in SAID.items():
        write_jsonl(tmp_path / f"{name}.jsonl", answer_rows(said))

    def run(server, model_1="dpo-1", model_2="sft", dry_run=False, **flags):
        values = {
            "questions": tmp_path / "question.jsonl",
            "references": tmp_path / "reference.jsonl",
            "judge-prompts": "data/mt_bench/judge_prompts.jsonl",
            "judge": "stand_in",
            "model": "",
            "batch-size": 8,
            "tensor-parallel-size": 1,
            "gpu-memory-percent": 90,
            "max-num-batched-tokens": 0,
            "max-tokens": 64,
            "seed": 1,
            "journal": tmp_path / "journal",
            "out": tmp_path / f"{model_1}-{model_2}.jsonl",
        }
        models = [model for model in (model_1, model_2) if model]
        answers = flags.pop("answers", [tmp_path / f"{model}.jsonl" for model in models])
        known = {"kind", "name", *endpoints.DEFAULTS}
        asked = {name: flags.pop(name) for name in list(flags) if name in known}
        values["endpoint"] = json.dumps(endpoint(server, **asked))
        values |= {name.replace("_", "-"): value for name, value in flags.items()}
        words = [f"--{name}={value}" for name, value in values.items()]
        words += ["--answers", *map(str, answers), "--models", *models]
        ask_judge.main(words + ["--dry-run"] * dry_run)
        if not dry_run:
            return [json.loads(line) for line in values["out"].read_text().splitlines()]

    return run


def verdicts_asked(server):
    """What the judge was asked, without the trial."""
    return [
        asked["messages"][-1]["content"] for asked in server.asked if "<" in asked["messages"][-1]["content"]
    ]


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
    assert judge(server, timeout=0.5) == calm
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


@pytest.mark.parametrize(
    ("text", "verdict"),
    [
        ("A is better.\n[[A]]", "A"),
        ("[[B]]", "B"),
        ("Both. [[C]]", "tie"),
        ("这个回答更好。[[B]]", "B"),
        ("Ответ лучше. [[A]] [[A]]", "A"),
        ("[[A]] or [[B]]?", None),
        ("Not [[A]], so [[C]]", None),
        ("I cannot help with that.", None),
        ("[A]", None),
        ("[[D]]", None),
        ("", None),
    ],
)
def test_a_verdict_is_one_of_fastchats_marks_and_only_one(text, verdict):
    assert verdicts.verdict(text) == verdict


@pytest.mark.parametrize(
    ("text", "rating"),
    [
        ("Rating: [[7]]", 7),
        ("[[7.5]] because [3] is a quote", 7.5),
        ("[4]", 4),
        ("[[7]] and again [[7]]", 7),
        ("[[7]] or [[8]]", None),
        ("[[11]]", None),
        ("[[0]]", None),
        ("7/10", None),
    ],
)
def test_a_rating_is_one_number_from_1_to_10(text, rating):
    assert verdicts.rating(text) == rating


@given(st.text(alphabet="[]ABC ", max_size=30))
def test_where_a_verdict_is_read_fastchat_reads_the_same(text):
    found = verdicts.verdict(text)
    marks = [(mark in text, winner) for mark, winner in verdicts.MARKS.items()]
    assert found is None or found == next(winner for there, winner in marks if there)


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


def test_a_judge_that_never_gives_a_verdict_is_one_sentence(start, judge, tmp_path):
    server = start(lambda payload: "I cannot judge this.")
    with pytest.raises(InputError, match=r"40 of 40 answers have no verdict, such as .*I cannot judge this"):
        judge(server)
    assert len(server.asked) == 1 + 40 and not (tmp_path / "dpo-1-sft.jsonl").exists()


# Agreement with FastChat.


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
        ours = winrate.summary(chosen, 100, 1)
        assert [found[key] for key in ("win", "tie", "loss")] == [ours[key] for key in ("win", "tie", "loss")]
        for key in ("win_rate", "loss_rate", "win_rate_adjusted"):
            assert found[key] == pytest.approx(ours[key], abs=5e-7)
    turn_2 = tmp_path / "turn_2.jsonl"
    files.write_jsonl(turn_2, [row for row in rows["dpo-1", "sft"] if row["turn"] == 2])
    ours = winrate.summary([row for row in rows["dpo-1", "sft"] if row["turn"] == 2], 100, 1)
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


# Money.


def ten_and_two(payload, text):
    return (10, 2)


def test_a_budget_in_calls_ends_cleanly_and_the_next_job_goes_on(start, judge, tmp_path):
    server = start(usage=ten_and_two)
    with pytest.raises(InputError, match=r"budget is used up after 15 calls.* left to do: 26 calls; raise"):
        judge(server, max_calls=15)
    assert len(server.asked) == 15 and not (tmp_path / "dpo-1-sft.jsonl").exists()
    with pytest.raises(InputError, match=r"endpoints\.stand_in: the budget is used up after 15 calls"):
        judge(server, max_calls=15)
    assert len(server.asked) == 15
    assert len(judge(server)) == 20
    assert len(server.asked) == 15 + 1 + 26


def test_a_budget_in_money_is_never_exceeded(start, judge, capsys):
    server = start(usage=ten_and_two)
    prices = {"input_price": 1e6, "output_price": 1e6}  # a token is 1
    with pytest.raises(InputError, match=r"used up after .* by the config's prices; .* left to do: .*about"):
        judge(server, max_cost=1500, max_tokens=4, **prices)
    assert 0 < 12 * len(server.asked) <= 1500
    judge(server, max_tokens=4, **prices)
    assert re.search(r"so far \d+ calls, \d+ tokens in and \d+ out, \d+\.\d{4} by", capsys.readouterr().out)


@pytest.mark.parametrize("budget", [{"max_calls": 0}, {"max_cost": 0}])
def test_a_budget_of_nothing_is_said_before_any_call(start, judge, budget):
    server = start()
    with pytest.raises(InputError, match="a budget of 0 allows no call"):
        judge(server, **budget)
    assert not server.asked


def test_a_dry_run_counts_and_prices_and_asks_nobody(start, judge, capsys):
    server = start(usage=ten_and_two)
    judge(server, dry_run=True, input_price=30, output_price=60)
    assert re.search(
        r"40 verdicts, of which 0 are in the journal; to be made: 40 calls, about 0\.\d\d",
        capsys.readouterr().out,
    )
    assert not server.asked
    judge(server)
    judge(server, dry_run=True)
    assert "of which 40 are in the journal; to be made: 0 calls" in capsys.readouterr().out


def test_the_costs_of_all_judges_are_those_of_their_dry_runs(start, judge, capsys, tmp_path):
    server = start(usage=ten_and_two)
    judge(server)
    dear = endpoint(server, name="another", model="dear", input_price=30.0)
    sections = {
        "stand_in": {"endpoint": endpoint(server), "max_tokens": 64},
        "another": {"endpoint": dear, "max_tokens": 64},
    }
    matches = [["dpo-1", "sft"]]
    values = {
        "questions": tmp_path / "question.jsonl",
        "references": tmp_path / "reference.jsonl",
        "judge-prompts": "data/mt_bench/judge_prompts.jsonl",
        "answers": tmp_path,
        "judges": json.dumps(sections),
        "matches": json.dumps(dict.fromkeys(sections, matches)),
        "seed": 1,
        "journal": tmp_path / "journal",
    }
    capsys.readouterr()
    judging_costs.main([f"--{name}={value}" for name, value in values.items()])
    said = capsys.readouterr().out
    assert "judge stand_in: 0 calls in all, about 0.00 by" in said
    assert re.search(r"judge another: 40 calls in all, about 0\.\d*[1-9]\d* by", said)


def test_a_missing_key_is_said_before_any_call_and_a_key_is_never_said(
    start, judge, monkeypatch, capsys, tmp_path
):
    server = start(key="s3cret")
    monkeypatch.delenv("JUDGE_KEY", raising=False)
    with pytest.raises(InputError, match=r"endpoints\.stand_in: the environment has no JUDGE_KEY"):
        judge(server, key_variable="JUDGE_KEY")
    (tmp_path / "key").write_text("another server's")
    monkeypatch.setenv("PREFLINE_API_KEY_FILE", str(tmp_path / "key"))
    with pytest.raises(InputError, match="the environment has no JUDGE_KEY"):
        judge(server, key_variable="JUDGE_KEY")
    monkeypatch.setenv("JUDGE_KEY", "wr0ng")
    with pytest.raises(InputError, match=r"wants a key .* and JUDGE_KEY is refused") as error:
        judge(server, key_variable="JUDGE_KEY")
    assert "wr0ng" not in str(error.value) and not server.asked
    monkeypatch.setenv("JUDGE_KEY", "s3cret")
    judge(server, key_variable="JUDGE_KEY")
    monkeypatch.delenv("JUDGE_KEY")
    judge(server, key_variable="JUDGE_KEY")  # all is there: no key is needed
    assert "s3cret" not in capsys.readouterr().out
    assert not any("s3cret" in path.read_text() for path in tmp_path.rglob("*.json*"))


def test_anthropics_api(start, judge, monkeypatch):
    server = start(key="s3cret", usage=ten_and_two)
    monkeypatch.setenv("ANTHROPIC_API_KEY", "s3cret")
    rows = judge(server, kind="anthropic", key_variable="ANTHROPIC_API_KEY")
    assert len(rows) == 20 and "error" not in {row["g1_winner"] for row in rows}
    asked = server.asked[-1]
    assert set(asked) == {"model", "messages", "temperature", "max_tokens", "system"}
    assert [message["role"] for message in asked["messages"]] == ["user"]
    headers = {name.lower(): value for name, value in server.headers.items()}
    assert headers["anthropic-version"] == "2023-06-01" and "authorization" not in headers


def test_what_a_killed_job_had_asked_counts_as_the_most_it_can_cost(tmp_path):
    asked = Endpoint(**endpoint("", max_cost=100, input_price=1e6, output_price=1e6))
    payload = {"messages": [{"content": "x" * 12}]}  # 20 bytes: at most 10 tokens
    meter = asked.meter(5, tmp_path)
    with meter.alone():
        meter.end(meter.start(payload, None), True, {"prompt_tokens": 3, "completion_tokens": 2})
        meter.end(meter.start(payload, None), False)
        meter.start(payload, None)  # no answer, no end
    with open(tmp_path / "endpoints/stand_in.jsonl", "a") as file:
        file.write("\n[0, 1")  # torn
    after = asked.meter(5, tmp_path)
    with after.alone():
        assert (after.calls, after.tokens, after.cost) == (3, [3 + 10, 2 + 5], 20)
        after.start(payload, None)
        after.count()
        assert after.calls == 4


# Rates.


def test_requests_wait_for_their_turn_by_number_and_by_tokens():
    waits = []
    payload = {"messages": [{"content": "x" * 196}]}  # 200 bytes as JSON
    meter = Meter(100, requests_per_minute=60)
    for _ in range(3):
        meter.end(
            meter.start(payload, waits.append),
            charged=True,
            usage={"prompt_tokens": 1, "completion_tokens": 1},
        )
    assert waits == pytest.approx([1, 2], abs=0.2)
    waits.clear()
    meter = Meter(100, tokens_per_minute=6000)  # 200 set aside are 2 seconds
    for _ in range(3):
        call = meter.start(payload, waits.append)
    assert waits == pytest.approx([2, 4], abs=0.2)
    meter.end(
        call, charged=True, usage={"prompt_tokens": 20, "completion_tokens": 30}
    )  # 150 less: 1.5 s less
    meter.start(payload, waits.append)
    assert waits[-1] == pytest.approx(4.5, abs=0.2)


@given(st.lists(st.tuples(st.integers(1, 400), st.integers(0, 50)), max_size=60), st.floats(0, 3000))
def test_a_meter_never_lets_more_be_spent_than_allowed(usages, most):
    meter = Meter(50, input_price=1e6, output_price=2e6, max_cost=most)
    payload = {"messages": [{"content": "y" * 796}]}  # 800 bytes: at most 400 tokens
    spent, in_flight = 0, []
    for tokens in usages:
        try:
            in_flight.append((meter.start(payload, lambda _: None), tokens))
        except OverBudget:
            break
        spent += tokens[0] + 2 * tokens[1]
        if len(in_flight) > 3:
            call, (into, out) = in_flight.pop(0)
            meter.end(call, True, {"input_tokens": into, "output_tokens": out})
    assert spent <= most


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
