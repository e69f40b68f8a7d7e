"""A language model as the judge of a whole run: what is asked, what an edit costs, and what would be paid."""

import shutil

import pytest
from conftest import QUICK, snakemake
from stand_in import StandIn

from prefline import files

OVERLAY = """
endpoints:
  local: {{kind: openai, urls: ["{url}"], model: judge, input_price: 10, max_calls: {calls}}}
mt_bench:
  modes: [pairwise-all, single]
  judge: gpt
  judges:
    gpt: {{endpoint: local, max_tokens: 64}}
"""
TARGETS = [
    "results/winrate.png",
    "results/mt_bench/ratings.csv",
    "results/mt_bench/model_judgment/gpt_pair.jsonl",
]
GAMES, RATINGS = 2 * 160 * 6, 160 * 4  # of four policies, if no two answers were alike


def says(payload):
    """The longer prompt half is better; a rating by length."""
    system, text = payload["messages"][0]["content"], payload["messages"][-1]["content"]
    if "[[4]]" in system:
        return f"[[{1 + len(text) % 10}]]"
    return f"[[{'ABC'[len(text) % 3]}]]"


@pytest.fixture
def server():
    stand_in = StandIn(says=says, name="judge", usage=lambda payload, text: (100, 5))
    yield stand_in
    stand_in.close()


@pytest.mark.long
def test_a_language_model_judges_all_and_is_asked_once(finished, tmp_path, server):
    copy = tmp_path / "copy"
    shutil.copytree(finished, copy, symlinks=True)

    def run(*arguments, calls="null", **options):
        (copy / "judge.yaml").write_text(OVERLAY.format(url=server.url, calls=calls))
        process = snakemake(copy, *(arguments or TARGETS), *QUICK, "judge.yaml", **options)
        return process.stdout + process.stderr

    said = run("judging_costs")
    assert "judge gpt: " in said and "dpo-1 against sft, judge gpt: 320 verdicts, of which 0 are" in said
    assert not server.asked
    one = "results/mt_bench/judgments/gpt/dpo-1.jsonl"
    assert "the budget is used up after 40 calls" in run(one, calls=40, check=False)
    assert len(server.asked) == 40

    said = run()
    assert said.count("rule ask_judge") == 6 + 4
    assert len({str(asked["messages"]) for asked in server.asked}) <= GAMES + RATINGS + 3
    result = files.read_json(copy / "results/winrate.json")
    assert result["judge"] == "gpt" and set(result["all_pairs"]) == {"sft", "dpo-1", "rebel-1", "rebel-2"}
    assert all(rate["overall"]["matches"] == 160 for rate in result["win_rates"].values())
    assert len((copy / TARGETS[2]).read_text().splitlines()) == 6 * 160

    asked = len(server.asked)
    assert "ask_judge" not in run(calls=9999)  # a budget shapes no verdict
    (copy / one).unlink()
    assert run(one).count("rule ask_judge") == 1
    assert len(server.asked) <= asked + 2  # by the check of the judge
