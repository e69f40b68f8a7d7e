"""Two experiments in one table: what they share has one row, and what cannot be compared is refused."""

import itertools
import json

import pytest
import yaml

from prefline import files
from prefline.config import endpoints
from prefline.errors import InputError
from prefline.provenance import experiments, metadata, records
from prefline.provenance.hashes import Hashes
from scripts.mt_bench import compute_winrate
from tools import compare

QUESTIONS = [{"question_id": number, "category": "all", "turns": ["a", "b"]} for number in range(10)]
JUDGMENTS, ANSWERS = "results/mt_bench/judgments/reference", "results/mt_bench/answers"


def write_jsonl(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture
def experiment(tmp_path, monkeypatch):
    """experiment(name, {policy: winner of all games}, **config) makes the results of one, with a record."""
    monkeypatch.chdir(tmp_path)
    write_jsonl(tmp_path / "question.jsonl", QUESTIONS)

    def make(name, policies, **keys):
        for policy, winner in {**policies, "sft": None}.items():
            said = [
                {"question_id": one["question_id"], "choices": [{"turns": ["x", "y"]}]} for one in QUESTIONS
            ]
            write_jsonl(tmp_path / ANSWERS / f"{policy}.jsonl", said)
            games = {"g1_winner": winner, "g2_winner": winner, "g1_judgment": "", "g2_judgment": ""}
            games |= {"model_1": policy, "model_2": "sft", "judge": ["reference", "pair"]}
            matches = itertools.product(range(10), (1, 2))
            rows = [{"question_id": number, "turn": turn, **games} for number, turn in matches]
            if winner:
                write_jsonl(tmp_path / JUDGMENTS / f"{policy}.jsonl", rows)
        judged = [f"{JUDGMENTS}/{policy}.jsonl" for policy in policies]
        answered = [f"{ANSWERS}/{policy}.jsonl" for policy in policies]
        out = experiments.winrate_of(name)
        words = ["--questions", "question.jsonl", "--policies", *policies, "--judgments", *judged]
        words += ["--other-judges", "--other-judgments", "--pairs", "--answers", *answered, "--start", "sft"]
        words += ["--start-answers", f"{ANSWERS}/sft.jsonl", "--max-lost", "1", "--bootstrap-samples", "100"]
        compute_winrate.main([*words, "--seed", "1", "--out", out, "--csv", "w.csv"])
        config = {
            "experiment": name,
            "mt_bench": {"judge": "reference", "questions": "question.jsonl"},
            **keys,
        }
        files.write_text(f"{experiments.FOLDER}/{name}/config.yaml", yaml.safe_dump(config))
        inputs = {path: files.sha256(path) for path in [*judged, *answered, f"{ANSWERS}/sft.jsonl"]}
        record = {"sha256": "", "inputs": inputs, "data": {}, "packages": {}, "seconds": 1}
        made = dict.fromkeys(metadata.COMPARED) | {"input": [], "log": [], "params": []}
        files.write_json(records.path_of(out), record | {"snakemake": made})
        picture = experiments.picture_of(name)
        (tmp_path / picture).touch()
        inputs = {path: files.sha256(path) for path in (out, f"{experiments.FOLDER}/{name}/config.yaml")}
        files.write_json(records.path_of(picture), record | {"snakemake": made, "inputs": inputs})

    return make


def test_each_policy_has_a_row_with_its_experiments_and_the_configs_differences(experiment, tmp_path, capsys):
    seeds = {"dpo-s1-1": "model_1", "dpo-s2-1": "tie"}
    experiment("cold", seeds, runs={"dpo": {"beta": 0.1, "seeds": [1, 2]}}, machine={"gpus": 1})
    more = {**seeds, "dpo-s3-1": "model_2", "hot-1": "model_2"}
    runs = {"dpo": {"beta": 0.1, "seeds": [1, 2, 3]}, "hot": {"beta": 0.5}}
    experiment("hot", more, runs=runs, machine={"gpus": 8})
    compare.main(["cold", "hot"])
    text = (tmp_path / "results/experiments/cold_vs_hot.md").read_text()
    assert text in capsys.readouterr().out
    rates, compared, differing = text.split("\n\n")
    assert [line.split(" | ")[:3] for line in rates.splitlines()[2:]] == [
        ["| dpo-1", "cold, hot", "0.50"],
        ["| hot-1", "hot", "0.00"],
    ]
    assert [line.split(" | ")[:3] for line in compared.splitlines()[2:]] == [
        ["| dpo-1", "hot-1", "+50.0"], ["| dpo-1", "sft", "+0.0"], ["| hot-1", "sft", "-50.0"],
    ]  # fmt: skip
    assert differing.splitlines()[2:] == [
        "| runs.dpo.seeds | [1, 2] | [1, 2, 3] |", "| runs.hot |  | {beta: 0.5} |",
    ]  # fmt: skip
    assert (tmp_path / "results/experiments/cold_vs_hot.png").stat().st_size > 20_000


def test_what_cannot_be_compared_is_refused(experiment, tmp_path):
    experiment("cold", {"dpo-1": "model_1"})
    experiment("hot", {"hot-1": "tie"})
    with pytest.raises(
        InputError, match=r"no experiment hott; known: cold, hot\. Write experiment: hott into"
    ):
        compare.main(["cold", "hott"])
    with open(tmp_path / JUDGMENTS / "dpo-1.jsonl", "a") as file:
        file.write("\n")
    with pytest.raises(
        InputError, match=r"cold/winrate\.json was made from another .*dpo-1\.jsonl; run snakemake "
    ):
        compare.main(["cold", "hot"])


def test_trainings_that_differ_in_more_than_seeds_are_no_repetitions(experiment):
    experiment("cold", {"dpo-s1-1": "model_1"}, runs={"dpo": {"beta": 0.1, "seeds": [1]}})
    experiment("hot", {"dpo-s2-1": "model_2"}, runs={"dpo": {"beta": 5, "seeds": [2]}})
    experiment("plain", {"dpo-1": "tie"}, runs={"dpo": {"beta": 0.1}})
    with pytest.raises(InputError, match=r"dpo-1 of the experiments cold and hot .* \(runs.dpo.beta\); give"):
        compare.main(["cold", "hot"])
    with pytest.raises(
        InputError, match=r"dpo-1 is one training in .* plain, and a run with seeds in cold; g"
    ):
        compare.main(["cold", "plain"])


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("config.yaml", "runs: {dpo: {beta: 0.3}}", r"winrate\.png was made from another .*/config\.yaml"),
        ("config.yaml", "- [", r"winrate\.png was made from another .*/config\.yaml"),
        ("winrate.json", "{", r"winrate\.png was made from another .*/winrate\.json"),
        (
            "config.yaml",
            None,
            r"config\.yaml, from which .*winrate\.png was made, is missing; run snakemake ",
        ),
        ("winrate.png", None, r"winrate\.png is missing, or has no record; run snakemake "),
    ],
)
def test_win_rates_and_a_config_that_do_not_belong_together_are_refused(
    experiment, tmp_path, name, text, told
):
    """An edited experiment that was interrupted has the new config beside the old win rates."""
    experiment("cold", {"dpo-1": "model_1"})
    experiment("hot", {"hot-1": "tie"})
    compare.main(["cold", "results/experiments/hot/"])
    path = tmp_path / experiments.FOLDER / "cold" / name
    path.write_text(text) if text else path.unlink()
    with pytest.raises(InputError, match=told):
        compare.main(["cold", "hot"])


def test_one_name_of_two_judges_is_refused(experiment):
    for name, model in (("cold", "small"), ("hot", "large")):
        endpoint = {**dict.fromkeys(endpoints.COUNTED), "kind": "openai", "model": model}
        mt_bench = {"judge": "reference", "questions": "question.jsonl"}
        mt_bench["judges"] = {"reference": {"endpoint": endpoint}}
        experiment(name, {f"{name}-1": "tie"}, mt_bench=mt_bench)
    with pytest.raises(
        InputError, match="reference judged the experiments cold and hot with other values of"
    ):
        compare.main(["cold", "hot"])


def test_long_values_and_lines_stay_in_their_cells(experiment, tmp_path):
    for name, text in (("cold", "a | b\n" * 30), ("hot", "é" * 200)):
        experiment(name, {f"{name}-1": "tie"}, prompts={"system": text})
    compare.main(["cold", "hot"])
    (row,) = [
        line
        for line in (tmp_path / "results/experiments/cold_vs_hot.md").read_text().splitlines()
        if line.startswith("| prompts.system ")
    ]
    assert row.count(r"a \| b") == 30 and "é" * 200 in row


@pytest.mark.parametrize(
    ("outputs", "advice"),
    [
        (
            [f"{ANSWERS}/dpo-1.jsonl", f"{JUDGMENTS}/dpo-1.jsonl"],
            r"replace dpo-1, .*; give its runs other names",
        ),
        ([f"{ANSWERS}/dpo-1.jsonl", f"{ANSWERS}/sft.jsonl"], "replace dpo-1, sft, .*; work in another clone"),
        (
            [f"{JUDGMENTS}/dpo-1.jsonl"],
            "replace .*/reference/dpo-1.jsonl, .*; give the judge another name, or",
        ),
    ],
)
def test_a_plan_that_replaces_what_another_experiment_is_made_from_is_refused(
    experiment, tmp_path, outputs, advice
):
    experiment("cold", {"dpo-1": "model_1"})
    hashes = Hashes(tmp_path / "hashes.json")
    experiments.check_kept(set(outputs), "cold", "sft", hashes)
    experiments.check_kept({f"{ANSWERS}/hot-1.jsonl", experiments.winrate_of("hot")}, "hot", "sft", hashes)
    with pytest.raises(InputError, match=f"the experiment hot would {advice}"):
        experiments.check_kept(set(outputs), "hot", "sft", hashes)
    for path in outputs:
        (tmp_path / path).unlink()
    experiments.check_kept(set(outputs), None, "sft", hashes)
