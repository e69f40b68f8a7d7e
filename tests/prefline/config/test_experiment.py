"""params.yaml: recipes and values for an experiment, laid over config.yaml."""

import re

import pytest

from prefline.config import experiment, precedence
from prefline.errors import InputError


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.yaml").write_text("seed: 2\n")
    (tmp_path / "config.yaml").write_text("seed: 1\n")
    return tmp_path


@pytest.mark.parametrize(
    ("text", "recipes"),
    [("", []), ("seed: 3", []), ("recipes: []", []), ("recipes: [mine.yaml]", ["mine.yaml"])],
)
def test_recipes(folder, text, recipes):
    (folder / "params.yaml").write_text(text)
    assert experiment.files() == [*recipes, "params.yaml"]


def test_the_file_may_be_missing():
    assert experiment.files() == []


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("recipes: mine.yaml", "params.yaml: recipes: 'mine.yaml' is no list of files"),
        ("recipes: [1]", "params.yaml: recipes: [1] is no list of files"),
        ("recipes: [gone.yaml]", "params.yaml: recipes: there is no file gone.yaml"),
        ("recipes: [", "params.yaml, line 1: YAML cannot read this"),
    ],
)
def test_what_is_refused(folder, text, sentence):
    (folder / "params.yaml").write_text(text)
    with pytest.raises(InputError, match=re.escape(sentence)):
        experiment.files()


def test_a_file_without_values_is_no_overlay(folder):
    (folder / "params.yaml").write_text("recipes: [mine.yaml]")
    assert precedence.layers(["mine.yaml", "params.yaml", "config.yaml"]) == [{"seed": 1}, {"seed": 2}]
