"""Budgets, prices, keys and rates of a judge: none is exceeded, and a dry run tells the costs."""

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from stand_in import endpoint

from prefline.errors import InputError
from prefline.servers.budget import Meter, OverBudget
from prefline.servers.endpoint import Endpoint
from scripts.mt_bench import judging_costs


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
