"""config.yaml and its schema: every mistake found at once, named with its key."""

import copy
import dataclasses
import math

import pytest
import yaml
from configs import COMPLETE, DEFAULT, PROPERTIES, TEXT, changed, leaves, put, refused
from hypothesis import given, settings
from hypothesis import strategies as st

from prefline.config import loading as configuration
from prefline.config import schema as schemas
from prefline.errors import InputError
from prefline.training import losses, methods

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
        assert value == wanted and type(value) is type(wanted), path
    assert {path for path in written if path[0] != "training_defaults"} <= dict(leaves(loaded)).keys()


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
        assert refused(changed(path, [[1]])).startswith(f"config: {'.'.join(path)}: ")


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
        (("train", "beta"), 0),
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
        (("prompts", "source"), "prompts.txt"),
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
    config["runs"]["dpo"] = None
    assert "runs: {} should be non-empty" in refused(config)


def test_the_model_that_training_begins_with_must_exist():
    message = refused(changed(("models", "sft", "init"), "bass"))
    assert message == (
        "config: models.sft.init names the model 'bass', which `models` lacks; "
        "known: start, base, sft, reward_model"
    )


RUN = {"iterations": 1, "init": "initial", "reference": "initial", "data": "current"}


def with_run(**keys):
    """The default config with one run, `own`."""
    return {**DEFAULT, "runs": {"own": {**RUN, **keys}}}


def test_a_run_overrides_what_it_names_of_train():
    trained = configuration.training(configuration.load(with_run(loss_type="rebel", eta=40.0)), "own")
    foreign = {"method", *methods.KEYS}
    shared = {key: value for key, value in COMPLETE["train"].items() if key not in foreign}
    assert trained == {**shared, "loss_type": "rebel", "eta": 40.0, "reward_scaling": "none"}


def test_a_run_is_shaped_by_its_own_loss_alone():
    loaded = configuration.load(DEFAULT)
    for run, keys in (("rebel", {"eta", "reward_scaling"}), ("dpo", {"beta", "label_smoothing"})):
        assert configuration.LOSS_KEYS & configuration.training(loaded, run).keys() == keys


def test_every_loss_can_be_chosen_with_trains_values():
    for name, keys in losses.HYPERPARAMETERS.items():
        config = with_run(loss_type=name, **{key: DEFAULT["train"][key] for key in keys})
        if name == "exo_pair":
            config["runs"]["own"]["label_smoothing"] = 1e-3
        loaded = configuration.load(config)
        assert configuration.LOSS_KEYS & configuration.training(loaded, "own").keys() == set(keys)


@pytest.mark.filterwarnings("ignore:You are importing from 'trl.experimental'")
def test_the_defaults_are_trls():
    import trl
    from trl.experimental.cpo import CPOConfig

    theirs = {field.name: field.default for field in dataclasses.fields(trl.DPOConfig)}
    for key in ("beta", "label_smoothing", "discopop_tau", "loss_weights"):
        assert DEFAULT["train"][key] == theirs[key], key
    assert DEFAULT["train"]["simpo_gamma"] == CPOConfig.__dataclass_fields__["simpo_gamma"].default


@pytest.mark.parametrize(
    ("run", "sentence"),
    [
        ({"loss_type": "sigmod"}, "own.loss_type: there is no loss 'sigmod'; did you mean 'sigmoid'?"),
        ({"loss_type": ["ipo", "stf"]}, "own.loss_type: there is no loss 'stf'; did you mean 'sft'?"),
        ({"loss_type": ["ipo", "ipo"]}, "own.loss_type: ['ipo', 'ipo'] has non-unique elements"),
        ({"loss_type": []}, "own.loss_type: [] should be non-empty"),
        ({"loss_type": 3}, "own.loss_type: 3 is not of type 'string', 'array'"),
        (
            {"loss_type": "rebel", "beta": 0.1},
            "own: the loss rebel does not take 'beta' (null takes it away); it takes eta, reward_scaling",
        ),
        ({"loss_weights": [1.0]}, "own: the loss sigmoid does not take 'loss_weights'"),
        (
            {"loss_type": ["sigmoid", "sft"], "loss_weights": [1.0]},
            "own: loss_weights has 1 numbers for 2 losses (sigmoid, sft); give one for each, or null for 1",
        ),
        ({"loss_type": "exo_pair"}, "own: exo_pair is infinite where label_smoothing is 0"),
        ({"loss_type": "simpo", "simpo_gamma": -1}, "own.simpo_gamma: -1 is less than the minimum"),
        ({"loss_type": "rebel", "reward_scaling": "zscore"}, "did you mean 'z_score'?"),
    ],
    ids=str,
)
def test_a_run_has_the_hyperparameters_of_its_loss(run, sentence):
    assert sentence in refused(with_run(**run))


@pytest.fixture
def own_losses(tmp_path):
    """A function that returns the name of a loss in a file of the user's."""
    path = tmp_path / "losses.py"
    path.write_text("exit()\ndef dpop(batch, beta, lam, power=1): pass\ndef plain(batch, *, beta): pass\n")
    return lambda name: f"{path}:{name}"


def test_a_loss_of_ones_own_has_keys_of_the_config_and_arguments(own_losses):
    """Its file is never run."""
    loaded = configuration.load(with_run(loss_type=own_losses("dpop"), loss_arguments={"lam": "5e-1"}))
    keys = configuration.training(loaded, "own")
    assert methods.KEYS & keys.keys() == {"loss_type", "beta", "loss_arguments"}
    assert keys["loss_arguments"] == {"lam": 0.5}
    several = ["sigmoid", own_losses("dpop"), own_losses("plain")]
    loaded = configuration.load(
        with_run(loss_type=several, loss_arguments={"lam": 5, "power": 2}, loss_weights=[1, 2, 3])
    )
    wanted = {"loss_type", "beta", "label_smoothing", "loss_arguments", "loss_weights"}
    assert methods.KEYS & configuration.training(loaded, "own").keys() == wanted
    assert configuration.load(with_run(loss_type=own_losses("plain")))
    # A default for all runs is none of a loss that takes no arguments.
    config = {**DEFAULT, "train": {**DEFAULT["train"], "loss_type": own_losses("dpop")}}
    config["train"]["loss_arguments"] = {"lam": 5.0}
    loaded = configuration.load({**config, "runs": {"own": RUN, "other": {**RUN, "loss_type": "ipo"}}})
    assert configuration.training(loaded, "own")["loss_arguments"] == {"lam": 5.0}
    assert "loss_arguments" not in configuration.training(loaded, "other")


@pytest.mark.parametrize(
    ("name", "keys", "sentence"),
    [
        ("dpo", {}, "runs.own.loss_type: {file} has no function 'dpo'; did you mean 'dpop'?"),
        ("dpop", {}, "runs.own: loss_arguments lacks 'lam', which {file}:dpop takes"),
        ("dpop", {"loss_arguments": {"lam": 1, "pover": 2}}, "not take 'pover'; did you mean 'power'?"),
        ("dpop", {"loss_arguments": {"lam": 1, "beta": 2}}, "beta is a key beside loss_arguments"),
        ("dpop", {"loss_arguments": {"lam": 1}, "eta": 2.0}, "the loss {file}:dpop does not take 'eta'"),
        ("dpop", {"loss_arguments": {"lam": "high"}}, "own.loss_arguments.lam: 'high' is not of type"),
        ("plain", {"loss_arguments": {"lam": 1}}, "does not take 'lam'; known: none"),
        ("plain", {"loss_weights": [1.0]}, "the loss {file}:plain does not take 'loss_weights'"),
    ],
)
def test_a_wrong_loss_of_ones_own_is_refused(own_losses, name, keys, sentence):
    wanted = sentence.format(file=own_losses("").rstrip(":"))
    assert wanted in refused(with_run(loss_type=own_losses(name), **keys))


def test_arguments_of_a_loss_that_is_built_in_are_refused():
    said = refused(with_run(loss_arguments={"lam": 1.0}))
    assert "own: the loss sigmoid does not take 'loss_arguments'" in said
    missing = refused(with_run(loss_type=["sigmoid", "mine/gone.py:f"]))
    assert "own.loss_type: there is no file mine/gone.py (seen from " in missing


def test_an_overlay_takes_a_hyperparameter_away_with_its_loss():
    run = configuration.load(with_run(loss_type="rebel", beta=None))["runs"]["own"]
    assert "beta" not in run
    summed = with_run(loss_type=["sigmoid", "sft"], loss_weights=["1e-1", 1])
    assert configuration.load(summed)["runs"]["own"]["loss_weights"] == [0.1, 1]


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
        if name not in ("seed", "models", "endpoints", "rewards", "runs", "benchmarks"):
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
            "rewards.other.function: 'f' does not match",
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
    assert f"{key} {value} goes by the held-out loss on the way, but eval_steps is null: say" in said
    config = changed((*path, key), value)
    put(config, (*path, "eval_steps"), 5)
    configuration.load(config)
