"""Runs in the config: what they override, and the hyperparameters that their losses have."""

import dataclasses

import pytest
from configs import COMPLETE, DEFAULT, refused

from prefline import policies
from prefline.config import loading as configuration
from prefline.training import losses, methods

LOSS_KEYS = losses.hyperparameters(list(losses.LOSSES))
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
        assert LOSS_KEYS & configuration.training(loaded, run).keys() == keys


def test_every_loss_can_be_chosen_with_trains_values():
    for name, keys in losses.HYPERPARAMETERS.items():
        config = with_run(loss_type=name, **{key: DEFAULT["train"][key] for key in keys})
        if name == "exo_pair":
            config["runs"]["own"]["label_smoothing"] = 1e-3
        loaded = configuration.load(config)
        assert LOSS_KEYS & configuration.training(loaded, "own").keys() == set(keys)


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
            "own: the loss rebel does not take 'beta' (null removes it); it takes eta, reward_scaling",
        ),
        ({"loss_weights": [1.0]}, "own: the loss sigmoid does not take 'loss_weights'"),
        (
            {"loss_type": ["sigmoid", "sft"], "loss_weights": [1.0]},
            "own: loss_weights has 1 numbers for 2 losses (sigmoid, sft); give one for each, or null for 1",
        ),
        ({"loss_type": "exo_pair"}, "own: exo_pair is infinite if label_smoothing is 0"),
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


def test_null_lets_a_run_sample_without_a_correction():
    keys = {"method": "grpo", "loss_type": None, "label_smoothing": None, "sampler": "vllm"}
    for ratio, dtype, used in ((None, "bfloat16", None), (3.0, "bfloat16", 3.0), (3.0, "float32", None)):
        config = with_run(**keys, max_sampling_ratio=ratio, dtype=dtype)
        trained = configuration.training(configuration.load(config), "own")
        assert trained["max_sampling_ratio"] == used


def test_seeds_make_chains_of_policies_whose_names_tell_run_seed_and_iteration():
    loaded = configuration.load(with_run(iterations=2, seeds=["3", 1.0], beta=0.3))
    found = policies.chains(loaded)
    assert {chain: keys["seed"] for chain, keys in found.items()} == {"own-s3": 3, "own-s1": 1}
    made = policies.of_chains(found)
    assert made == ["own-s3-1", "own-s3-2", "own-s1-1", "own-s1-2"]
    assert policies.subjects([*made, "dpo-1", "sft"]) == {
        "own-1": ["own-s3-1", "own-s1-1"],
        "own-2": ["own-s3-2", "own-s1-2"],
        "dpo-1": ["dpo-1"],
        "sft": ["sft"],
    }
    assert configuration.training(loaded, "own-s3") == configuration.training(loaded, "own")
    assert configuration.training(loaded, "own-s1")["beta"] == 0.3
    (plain,) = policies.chains(configuration.load(with_run(seeds=None))).items()
    assert plain == ("own", {**RUN, "seed": DEFAULT["seed"]})


@pytest.mark.parametrize(
    ("seeds", "sentence"),
    [
        ([], "own.seeds: [] should be non-empty"),
        ([1, 1], "own.seeds: [1, 1] has non-unique elements"),
        (3, "own.seeds: 3 is not of type 'array', 'null'"),
        ([-1], "own.seeds.0: -1 is less than the minimum"),
    ],
)
def test_wrong_seeds_are_refused(seeds, sentence):
    assert sentence in refused(with_run(seeds=seeds))


def test_a_run_with_the_name_of_a_seed_of_another_is_refused():
    runs = {"own": {**RUN, "seeds": [1, 2]}, "own_s2": RUN}
    said = refused({**DEFAULT, "runs": runs})
    assert "runs.own.seeds has 2, and runs.own_s2 would give its policies' targets the same names" in said
