"""config.yaml and its schema: every mistake found at once, named with its key."""

import contextlib
import copy
import math
from pathlib import Path

import pytest
import yaml
from configs import COMPLETE, DEFAULT, PROPERTIES, TEXT, changed, leaves, put, refused
from hypothesis import given, settings
from hypothesis import strategies as st

from prefline.config import loading as configuration
from prefline.config import schema as schemas
from prefline.errors import InputError

# Sections whose keys the user chooses: column names, and categories of questions.
FREE = {"columns", "temperature"}


LEAVES = dict(leaves(DEFAULT))
NUMBERS = {path: value for path, value in LEAVES.items() if type(value) in (int, float)}
CLOSED = [path for path in LEAVES if not FREE & set(path[:-1])]


def test_the_default_is_valid_and_stays_as_it_is():
    config = copy.deepcopy(DEFAULT)
    loaded = configuration.load(config, ["config.yaml"])
    assert config == DEFAULT
    shared, written = DEFAULT["training_defaults"], dict(leaves(DEFAULT))
    for path, value in leaves(loaded):
        wanted = written.get(path, shared.get(path[-1]))
        assert value == wanted and (type(value) is type(wanted) or isinstance(value, float)), path
    assert {path for path in written if path[0] != "training_defaults"} <= dict(leaves(loaded)).keys()


@pytest.mark.parametrize("section", ["mt_bench", "vibe_check"])
@pytest.mark.parametrize(
    ("prompts", "given", "used"),
    [(None, None, None), ("A", None, "A"), ("A", "B", "B"), ("A", "", None), (None, "B", "B")],
)
def test_an_evaluation_uses_the_system_message_of_the_prompts_unless_it_has_another(
    section, prompts, given, used
):
    config = changed(("prompts", "system"), prompts)
    config[section]["system"] = given
    assert configuration.load(config)[section]["system"] == used


def test_every_misspelt_key_is_named_with_the_right_one():
    for path in CLOSED:
        if path[0] in ("models", "rewards", "runs") and len(path) < 3:
            continue  # the user names these
        *section, key = path
        named = f"{'.'.join(section) or 'the top level'} has no key '{key}z'; did you mean '{key}'?"
        assert named in refused(changed(path, None, key=f"{key}z"))


def test_a_key_like_no_other_is_answered_with_the_known_ones():
    config = copy.deepcopy(DEFAULT)
    config["tokenize"]["xyzzy"] = 1
    message = refused(config)
    assert message == (
        "config: tokenize has no key 'xyzzy'; known keys: max_completion_length, max_length, "
        "max_prompt_length"
    )


def test_an_unknown_section_is_named():
    assert "the top level has no key 'promts'; did you mean 'prompts'?" in refused({**DEFAULT, "promts": {}})


def test_a_wrong_type_is_named_with_its_key():
    for path in {path[:-1]: path for path in LEAVES}.values():  # one of every section
        assert refused(changed(path, [[1]])).startswith(
            (f"config: {'.'.join(path)}: ", f"config: {'.'.join(path)}.0: ")
        )


@pytest.mark.parametrize("path", [("train", "beta"), ("prompts", "num_prompts")], ids=".".join)
def test_what_is_no_good_number_is_refused(path):
    for value in (math.nan, math.inf, -1, "many", True, "nan"):
        assert refused(changed(path, value)).startswith(f"config: {'.'.join(path)}: "), value


@pytest.mark.parametrize(
    ("paths", "value"),
    [
        (LEAVES, [["x"]]),
        (NUMBERS.keys() - {("rewards", "reward_model", "weight")}, -1),
        *((NUMBERS, value) for value in (math.nan, math.inf, "many", True)),
    ],
    ids=["type", "negative", "nan", "inf", "text", "bool"],
)
def test_every_key_refuses_what_it_cannot_take(paths, value):
    """All keys at once, each of which must be among the mistakes."""
    config = copy.deepcopy(DEFAULT)
    for path in paths:
        put(config, path, value)
    mistaken = [tuple(error.absolute_path) for error in configuration.VALIDATOR.iter_errors(config)]
    assert set(paths) <= {found[: len(path)] for found in mistaken for path in paths}


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("train", "label_smoothing"), 0.5),
        (("train", "beta"), -0.1),
        (("generate", "top_p"), 0),
        (("generate", "top_p"), 1.01),
        (("generate", "num_completions"), 1),
        (("prompts", "test_fraction"), 1),
        (("logps", "temperature"), 0),
        (("runs", "rebel", "iterations"), 0),
        (("rank", "strategy"), "min_max"),
        (("rank", "truncated"), "kept"),
        (("train", "dtype"), "float16"),
        (("generate", "num_completions"), 2.5),
        (("models", "sft", "source"), "hub:someone/model"),
        (("prompts", "source"), "hub:someone/prompts"),
        (("models", "base", "training", "warmup_ratio"), 1.5),
    ],
    ids=str,
)
def test_a_value_out_of_range_is_refused_with_the_keys_meaning(path, value):
    message = refused(changed(path, value))
    assert message.startswith(f"config: {'.'.join(path)}: ")
    assert message.endswith(")"), "the description in brackets"


def test_every_number_read_as_text_becomes_a_number():
    config = copy.deepcopy(DEFAULT)
    for path, value in NUMBERS.items():
        put(config, path, str(value))
    assert configuration.load(config) == COMPLETE


@given(st.floats(min_value=1e-300, max_value=1e300))
@settings(max_examples=15)
def test_every_spelling_of_a_float_is_the_same_float(value):
    for text in (repr(value), f"{value:.17e}", f"{value:.17e}".replace("e-", "E-")):
        assert (
            configuration.load(changed(("train", "learning_rate"), text))["train"]["learning_rate"] == value
        )


def test_yaml_reads_1e_6_as_text_and_the_config_as_a_number():
    text = TEXT.replace("adam_epsilon: 1.0e-8", "adam_epsilon: 1e-6")
    config = yaml.safe_load(text)
    assert config["training_defaults"]["adam_epsilon"] == "1e-6"
    assert configuration.load(config)["train"]["adam_epsilon"] == 1e-6


@pytest.mark.parametrize("value", ["1e3", "1000", 1000.0, 1.0e3, "1000.0"], ids=repr)
def test_a_whole_number_is_an_integer_however_it_is_written(value):
    number = configuration.load(changed(("prompts", "num_prompts"), value))["prompts"]["num_prompts"]
    assert number == 1000
    assert type(number) is int


def test_coercion_reaches_runs_and_categories():
    config = copy.deepcopy(DEFAULT)
    config["runs"]["dpo"]["learning_rate"] = "5e-7"
    config["mt_bench"]["temperature"]["math"] = "1e-1"
    loaded = configuration.load(config)
    assert loaded["runs"]["dpo"]["learning_rate"] == 5e-7
    assert loaded["mt_bench"]["temperature"]["math"] == 0.1


def test_a_doubled_key_is_named_with_its_line(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text("seed: 1\nruns:\n  dpo:\n    beta: 0.1\n  rebel:\n    eta: 1\n  dpo:\n    beta: 0.2\n")
    with pytest.raises(InputError, match=r"mine\.yaml, line 7: runs\.dpo is given twice"):
        configuration.load(DEFAULT, [str(file)])


def test_an_empty_overlay_is_no_mistake(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text("# nothing yet\n")
    assert configuration.load(DEFAULT, [str(file), "config.yaml"]) == COMPLETE


@pytest.mark.parametrize("name", list(DEFAULT["models"]))
def test_a_run_with_the_name_of_a_model_is_refused(name):
    config = copy.deepcopy(DEFAULT)
    config["runs"][name] = config["runs"]["dpo"]
    assert refused(config) == f"config: runs.{name} has the name of a model; give the run another name"


@pytest.mark.parametrize("name", ["dpo-2", "DPO", "", "a/b", "1dpo", "a b", 1, True])
def test_a_run_whose_name_cannot_be_a_path_is_refused(name):
    config = copy.deepcopy(DEFAULT)
    config["runs"][name] = config["runs"]["dpo"]
    assert refused(config).startswith("config: runs")


def test_null_removes_a_run():
    config = copy.deepcopy(DEFAULT)
    config["runs"]["rebel"] = None
    assert list(configuration.load(config)["runs"]) == ["dpo"]


def test_the_template_of_a_model_that_is_trained_here_is_its_starts():
    assert (
        "models.sft.system_message is for models with a `source`, but sft is trained; set it for"
        in refused(changed(("models", "sft", "system_message"), "first_user"))
    )
    configuration.load(changed(("models", "sft", "system_message"), "own"))


def test_the_model_that_training_begins_with_must_exist():
    message = refused(changed(("models", "sft", "init"), "bass"))
    assert message == (
        "config: models.sft.init names the model 'bass', which `models` lacks; "
        "known: start, base, sft, reward_model"
    )


# The schema itself.


def test_the_walk_reaches_every_key_of_the_default():
    known = {path for path, _ in PROPERTIES}
    for path in CLOSED:
        in_schema = {path, (*path[:1], "*", *path[2:])}
        assert in_schema & known, path


def test_every_key_has_a_meaning_a_type_and_a_range():
    for path, schema in PROPERTIES:
        assert len(schema.get("description", "")) > 10, path
        assert schema["description"].endswith((".", ")")), path
        assert {"type", "enum", "allOf"} & set(schema), path
        if schema.get("type") in ("number", "integer") and path[:2] != ("rewards", "*"):  # of any sign
            assert "minimum" in schema or "exclusiveMinimum" in schema, path


def test_every_section_is_closed():
    for path, schema in PROPERTIES:
        types = schema.get("type", [])
        if "object" in ([types] if isinstance(types, str) else types) and path[-1] != "arguments":
            assert "additionalProperties" in schema or schema.get("unevaluatedProperties") is False, path


def test_every_section_requires_all_its_keys():
    for name, section in DEFAULT.items():
        if isinstance(section, dict) and name not in ("models", "endpoints", "rewards", "runs", "benchmarks"):
            defaults = DEFAULT["training_defaults"] if name == "train" else ()
            required = [*schemas.whole()["properties"][name]["required"], *defaults]
            assert sorted(set(required)) == sorted({*section, *defaults}), name


REWARD = {"kind": "classifier", "model": "base", "dtype": "float32", "head_weights": None}
JUDGE = {
    "kind": "judge",
    "endpoint": "local",
    "rubric": "data/rubric.txt",
    "lowest": 1,
    "highest": 10,
    "max_tokens": 64,
}


@pytest.mark.parametrize(
    ("reward", "sentence"),
    [
        (
            {"kind": "function"},
            "rewards.other: the kind function lacks 'function'; it takes function, arguments",
        ),
        (REWARD | {"opponents": 3}, "rewards.other: the kind classifier does not take 'opponents'"),
        (REWARD | {"model": "bse"}, "rewards.other.model names the model 'bse', which `models` lacks"),
        (REWARD | {"model": None}, "rewards.other.model: name an entry of `models`"),
        (
            {"kind": "pairwise", "model": "reward_model", "dtype": "float32", "opponents": 0},
            "rewards.other.model: reward_model is trained as a classifier, and compares no answers",
        ),
        (
            {"kind": "function", "function": "f", "arguments": {}},
            "rewards.other.function: 'f' is not of the form that this key takes (FILE.py:NAME",
        ),
        (JUDGE | {"endpoint": None}, "rewards.other.endpoint: name an entry of `endpoints`"),
        (JUDGE | {"lowest": 10}, "rewards.other.lowest is 10: it must be below rewards.other.highest"),
    ],
    ids=[
        *("lacks", "foreign", "unknown model", "no model", "classifier", "no function"),
        *("no endpoint", "no range"),
    ],
)
def test_a_reward_has_the_keys_of_its_kind(reward, sentence):
    config = copy.deepcopy(DEFAULT)
    config["endpoints"]["local"] = {"kind": "openai", "urls": ["http://a/v1"], "model": "b"}
    config["rewards"]["other"] = {"weight": 1.0, "normalize": "none", **reward}
    assert sentence in refused(config)


def test_an_overlay_changes_the_kind_of_a_reward_and_removes_one():
    config = copy.deepcopy(DEFAULT)
    function = {"kind": "function", "function": "mine.py:f", "arguments": {"x": 1}}
    config["rewards"]["reward_model"] |= dict.fromkeys(("model", "dtype", "head_weights")) | function
    config["rewards"]["other"] = None
    assert list(configuration.load(config)["rewards"]) == ["reward_model"]
    config["mt_bench"]["judge"] = "reward"
    assert "no entry of `rewards` is a classifier" in refused(config)


@pytest.mark.parametrize("path", [("train",), ("models", "sft", "training")], ids=".".join)
@pytest.mark.parametrize(("key", "value"), [("checkpoint", "best"), ("early_stopping_patience", 2)])
def test_what_goes_by_the_held_out_loss_needs_looks_at_it(path, key, value):
    said = refused(changed((*path, key), value))
    assert f"{key} {value} needs the held-out loss during training, but eval_steps is null; set" in said
    config = changed((*path, key), value)
    put(config, (*path, "eval_steps"), 5)
    configuration.load(config)


def test_a_misspelt_model_does_not_leave_the_embedded_one_in_its_place():
    for wrong, right in (("stf", "sft"), ("reward_modl", "reward_model"), ("bse", "base")):
        config = changed(("models", "start", "source"), "data/policy")
        config["models"][wrong] = {"source": "data/policy"}
        assert f"models.{wrong} is not used, and {right!r} would be trained" in refused(config)


def test_a_model_that_a_reward_names_may_have_a_name_like_another():
    config = changed(("rewards", "reward_model", "model"), "reward_model_2")
    config["models"]["reward_model_2"] = {"source": "data/policy"}
    configuration.load(config)


def _numbers(section, path=()):
    """Yield (section, key, path) of every value of a config that the schema calls a number."""
    for key, value in section.items():
        place = (*path, key)
        if isinstance(value, dict):
            yield from _numbers(value, place)
            continue
        with contextlib.suppress(KeyError):
            types = schemas.at(".".join(place)).get("type", [])
            types = {types} if isinstance(types, str) else set(types)
            if "number" in types and "integer" not in types:
                yield section, key, place


def test_2_and_two_point_zero_are_one_value_under_every_key():
    """Else a config that a program wrote again would run everything again."""
    whole = configuration.load(yaml.safe_load(Path("config.yaml").read_text(encoding="utf-8")))
    found = list(_numbers(whole))
    assert len(found) > 20
    assert [path for section, key, path in found if isinstance(section[key], int)] == []
    for number in (2, 2.0, "2", "2.0", "2e0"):
        config = yaml.safe_load(Path("config.yaml").read_text(encoding="utf-8"))
        config["train"]["num_train_epochs"] = config["runs"]["dpo"]["beta"] = number
        loaded = configuration.load(config)
        for value in (loaded["train"]["num_train_epochs"], loaded["runs"]["dpo"]["beta"]):
            assert repr(value) == "2.0"


def test_a_whole_number_too_large_for_any_float_is_one_sentence():
    config = yaml.safe_load(Path("config.yaml").read_text(encoding="utf-8"))
    config["train"]["num_train_epochs"] = 10**400
    with pytest.raises(InputError, match=r"train\.num_train_epochs"):
        configuration.load(config)


def test_the_experiment_null_of_the_command_line_is_none():
    assert configuration.load(changed(("experiment",), "null"))["experiment"] is None
