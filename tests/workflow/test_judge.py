"""A judge on a server beside the other rewards: what runs, what is left out, and what an edit costs."""

import shutil

import pytest
from conftest import QUICK, snakemake
from stand_in import StandIn

from prefline import files

OVERLAY = """
endpoints:
  local: {{kind: openai, urls: ["{url}"], model: judge}}
rewards:
  helpful: {{kind: judge, endpoint: local,
            rubric: rubric.txt, lowest: 0, highest: {highest}, max_tokens: 8,
            weight: 1.0, normalize: policy}}
"""


def says(payload):
    """A grade by length; a seventh of all answers have none, however often it is asked."""
    number = len(payload["messages"][0]["content"])
    return f"[[{number % 7}]]" if number % 7 else "Who can say?"


@pytest.fixture
def server():
    stand_in = StandIn(says=says, name="judge")
    yield stand_in
    stand_in.close()


@pytest.mark.slow
def test_a_judge_adds_its_ratings_and_is_asked_again_for_what_changed_only(finished, tmp_path, server):
    copy = tmp_path / "copy"
    shutil.copytree(finished, copy, symlinks=True)
    (copy / "rubric.txt").write_text("{prompt}\n{completion}")

    def run(highest):
        (copy / "judge.yaml").write_text(OVERLAY.format(url=server.url, highest=highest))
        return snakemake(copy, "results/samples/sft/preferences.json", *QUICK, "judge.yaml").stderr

    said = run(6)
    assert said.count("rule rate_completions") == 3 and "rule score_completions" not in said
    asked = len(server.asked)
    completions = files.read_json(copy / "results/samples/sft/preferences.json")["completions"]
    assert 0 < completions["unscored"] < completions["total"] / 2
    assert "ratings are missing" in (copy / "logs/sft/rate_completions/helpful/train-00000.txt").read_text()

    (copy / "rubric.txt").touch()
    assert "rule rate_completions" not in run(6)
    assert run(7).count("rule rate_completions") == 3
    assert len(server.asked) <= asked + 2  # by the check; the ratings are read anew, from the journal

    (copy / "rubric.txt").write_text("{prompt}\n{completion}!")
    assert run(7).count("rule rate_completions") == 3
    assert len(server.asked) > asked
