"""The methods that train a run: the keys that each takes, and the rewards that it can have."""

import copy
import dataclasses
from pathlib import Path

import pytest
import yaml

from prefline.config import loading as configuration
from prefline.errors import InputError
from prefline.training import methods

WRITTEN = yaml.safe_load(Path("config.yaml").read_text(encoding="utf-8"))
DEFAULT = configuration.load(WRITTEN)
RUN = {"iterations": 1, "init": "initial", "reference": "initial", "data": "current", "global_batch_size": 16}
REWARD = DEFAULT["rewards"]["reward_model"]
PAIRS = {"kind": "pairwise", "model": "start", "dtype": "float32", "opponents": 0, "weight": 1.0}
JUDGE = {
    **{
        "kind": "judge",
        "endpoint": "own",
        "rubric": "data/rubric.txt",
        "lowest": 1,
        "highest": 10,
        "max_tokens": 64,
        "weight": 1.0,
    },
}


def loaded(rewards=None, **run):
    config = {**copy.deepcopy(WRITTEN), "runs": {"own": RUN | run}}
    config["rewards"] = rewards or config["rewards"]
    local = {"kind": "openai", "urls": ["http://a/v1"], "model": "b"}
    config["endpoints"] = {"own": {"kind": "vllm", "model": "start"}, "local": local}
    return configuration.load(config)


@pytest.mark.parametrize("method", methods.HYPERPARAMETERS)
def test_a_method_has_its_own_keys_of_train_and_online(method):
    keys = configuration.training(loaded(method=method), "own")
    assert methods.KEYS & keys.keys() == set(methods.HYPERPARAMETERS[method])
    assert keys["learning_rate"] == DEFAULT["train"]["learning_rate"]
    assert "method" not in keys
    own = {key: DEFAULT["train"].get(key, DEFAULT["online"].get(key)) for key in methods.KEYS & keys.keys()}
    # The sampler transformers has no rounding to correct.
    assert keys == keys | own | ({"max_sampling_ratio": None} if "sampler" in own else {})


def test_a_run_overrides_a_key_of_online():
    assert configuration.training(loaded(method="rloo", epsilon="1e-1"), "own")["epsilon"] == 0.1


def test_the_runs_of_before_are_shaped_by_no_new_key():
    config = configuration.load(copy.deepcopy(WRITTEN))
    new = {"method", "desirable_weight", "undesirable_weight", *DEFAULT["online"]}
    for run in config["runs"]:
        assert not new & configuration.training(config, run).keys()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:You are importing from 'trl.experimental'")
def test_the_defaults_are_trls_but_for_what_the_world_asks_for():
    from trl import KTOConfig
    from trl.experimental.ppo import PPOConfig

    from prefline.training.online_trainers import CONFIGS

    ours = DEFAULT["online"] | DEFAULT["train"]
    differ = {"beta", "temperature", "max_completion_length", "missing_eos_penalty", "num_generations"}
    differ |= {"sampler", "max_sampling_ratio", "resamplings", "stop_at"}  # which TRL has not
    for method, theirs in {**CONFIGS, "ppo": PPOConfig, "kto": KTOConfig}.items():
        fields = {field.name: field.default for field in dataclasses.fields(theirs)}
        for key in set(methods.HYPERPARAMETERS[method]) - differ:
            assert ours[key] == fields[key], f"{method}: {key}"


@pytest.mark.parametrize(
    ("run", "sentence"),
    [
        ({"method": "grop"}, "own.method: 'grop' is none of its values; did you mean 'grpo'?"),
        (
            {"method": "kto", "eta": 1.0},
            "own: the method kto does not take 'eta' (null removes it); it takes",
        ),
        ({"method": "ppo", "loss_type": "ipo"}, "own: the method ppo does not take 'loss_type'"),
        ({"method": "rloo", "kl_coef": 0.1}, "own: the method rloo does not take 'kl_coef'"),
        ({"num_generations": 8}, "own: the loss sigmoid does not take 'num_generations'"),
        ({"method": "grpo", "num_genrations": 8}, "did you mean 'num_generations'?"),
        ({"method": "grpo", "num_generations": 1}, "own.num_generations: 1 is less than the minimum of 2"),
        (
            {"method": "grpo", "num_generations": 6},
            "own: num_generations 6 does not divide global_batch_size 16, the completions of a step; take "
            "global_batch_size 12 or 18, or num_generations 4 or 8",
        ),
        (
            {"method": "rloo", "num_generations": 32},
            "take global_batch_size 32, or num_generations 8 or 16",
        ),
        ({"beta": 0}, "own: beta is 0, which only rloo and grpo take; the loss sigmoid needs more"),
        (
            {
                "method": "ppo",
                "peft": {"r": 4, "lora_alpha": 8, "lora_dropout": 0.0, "target_modules": "all-linear"},
            },
            "own: ppo trains all parameters; set peft to null, or take rloo or grpo",
        ),
    ],
    ids=str,
)
def test_a_key_that_a_method_does_not_take_is_one_sentence(run, sentence):
    with pytest.raises(InputError) as refusal:
        loaded(**run)
    assert sentence in str(refusal.value)


@pytest.mark.parametrize(
    ("method", "reward", "sentence"),
    [
        ("grpo", {**REWARD, "normalize": "policy"}, "are not known in advance: take none, or prompt"),
        ("ppo", {**REWARD, "normalize": "policy"}, "are not known in advance: take none"),
        (
            "ppo",
            {**REWARD, "normalize": "prompt"},
            "ppo has one completion of each prompt; take none, or rloo",
        ),
        ("ppo", {**PAIRS, "normalize": "none"}, "of which ppo has one at a time; take rloo or grpo"),
        (
            "rloo",
            {**JUDGE, "normalize": "none"},
            "endpoint is of the kind vllm: rloo asks the judge while it trains",
        ),
    ],
)
def test_a_reward_that_a_method_cannot_have_is_one_sentence(method, reward, sentence):
    with pytest.raises(InputError) as refusal:
        loaded({"own_reward": reward}, method=method)
    assert "runs.own: rewards.own_reward" in str(refusal.value)
    assert sentence in str(refusal.value)


def test_rewards_that_a_method_can_have():
    loaded(
        {"right": {**REWARD, "normalize": "prompt"}, "better": {**PAIRS, "normalize": "none"}}, method="grpo"
    )
    loaded({"asked": {**JUDGE, "endpoint": "local", "normalize": "none"}}, method="ppo")
    loaded({"right": {**REWARD, "normalize": "policy"}}, method="kto")


def test_null_takes_a_key_away_when_the_method_changes():
    run = loaded(method="grpo", loss_type=None, beta=None, eta=None)["runs"]["own"]
    assert not {"loss_type", "beta", "eta"} & run.keys()
