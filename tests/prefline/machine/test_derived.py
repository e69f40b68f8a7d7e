"""What jobs get follows from the sizes of their models and the card; what is set stays as it is."""

import copy

import large_models
import pytest
from configs import COMPLETE

from prefline.machine import derived
from prefline.machine.memory import fit, sizes
from prefline.machine.memory import training as trainings
from prefline.machine.node import Node

TRAINING = {"gpu": 1, "parallel": "ddp", "gradient_checkpointing": "false", "mem_mb": 3000}
TRAINING |= {"per_device_train_batch_size": 16}
ENGINE = {"gpu": 1, "batch_size": 256, "tensor_parallel_size": 1, "gpu_memory_percent": 90, "mem_mb": 3000}
SCORING = {"gpu": 1, "batch_tokens": 16384, "mem_mb": 3000}
RUN = {"run": "dpo", "iteration": "1"}
JUDGE = '{"kind": "vllm", "dtype": "bfloat16"}'
LORA = {"r": 16, "lora_alpha": 32, "lora_dropout": 0.0, "target_modules": "all-linear"}


@pytest.fixture
def config(tmp_path, monkeypatch):
    """The default config with a policy of 8 billion parameters, a small reward model and a judge of 72."""
    monkeypatch.chdir(tmp_path)
    config = copy.deepcopy(COMPLETE)
    shapes = {"policy": large_models.LLAMA_8B, "small": large_models.SMALL, "judge": large_models.QWEN_72B}
    for name, shape in shapes.items():
        large_models.write(tmp_path / name, shape)
    config["models"]["sft"] = config["models"]["sft"] | {"source": "policy"}
    config["models"]["reward_model"] = config["models"]["reward_model"] | {"source": "small"}
    config["models"]["judge"] = {"source": "judge"}
    config["train"] |= {"dtype": "bfloat16", "global_batch_size": 64}
    config["generate"] |= {"engine": "vllm", "dtype": "bfloat16"}
    config["logps"]["dtype"] = "bfloat16"
    config["tokenize"] |= {"max_prompt_length": 1024, "max_completion_length": 1024}
    return config


def of_policy(config, node, fixed=None):
    about = {"model": ["sft"]}, RUN, ("preference", config["train"])
    return derived.resources(config, node, TRAINING, fixed or {}, *about)


def test_all_parameters_take_all_gpus_if_one_is_too_small(config):
    eight = of_policy(config, Node(8, 80, None))
    assert (eight["gpu"], eight["parallel"]) == (8, "fsdp2")
    assert 1 <= eight["per_device_train_batch_size"] <= 16
    held = {"model": [sizes.of("policy")]}
    job = derived.training(config, TRAINING | eight, held, RUN, ("preference", config["train"]))
    assert not fit.fits(trainings.parts(job), 80), "on one GPU it is too large"
    config["train"]["global_batch_size"] = 12
    assert of_policy(config, Node(8, 80, None))["gpu"] == 6, "8 do not divide the rows of a step"


def test_adapters_take_one_gpu_and_fewer_rows_on_a_smaller_card(config):
    config["train"]["peft"] = LORA
    large, small = (of_policy(config, Node(8, card, None)) for card in (80, 24))
    assert large["gpu"] == 1 and large["parallel"] == "ddp"
    assert large["per_device_train_batch_size"] >= small["per_device_train_batch_size"] >= 1
    assert (large["gradient_checkpointing"], small["gradient_checkpointing"]) == ("false", "true")


def test_what_is_set_stays_and_the_rest_fits_it(config):
    config["train"]["peft"] = LORA
    rows = of_policy(config, Node(1, 24, None), {"per_device_train_batch_size": 1})
    assert rows["per_device_train_batch_size"] == 1 and rows["gradient_checkpointing"] == "true"
    kept = of_policy(config, Node(1, 80, None), {"gradient_checkpointing": "true"})
    assert kept["gradient_checkpointing"] == "true" and kept["per_device_train_batch_size"] > 2
    assert of_policy(config, Node(8, 80, None), {"gpu": 2})["gpu"] == 2


def test_the_gpus_of_several_nodes_share_a_model_and_each_node_holds_its_own_processes(config):
    two = {"gpu": 0, "gres": "gpu:a100:8", "nodes": 2}
    one, both = of_policy(config, Node(8, 80, None)), of_policy(config, Node(8, 80, None), two)
    assert both["parallel"] == "fsdp2" and both["mem_mb"] == one["mem_mb"]
    assert both["per_device_train_batch_size"] >= one["per_device_train_batch_size"]


def test_a_judge_gets_the_gpus_that_its_weights_need(config):
    own = ENGINE | {"endpoint": JUDGE}

    def of_judge(node, fixed=None):
        return derived.resources(config, node, own, fixed or {}, {"model": ["judge"]}, {})

    found = of_judge(Node(8, 80, None))
    assert found["gpu"] == found["tensor_parallel_size"] == 4
    assert found["mem_mb"] > 10_000, "five processes"
    assert of_judge(Node(8, 80, None), {"gpu": 8})["tensor_parallel_size"] == 8
    assert of_judge(Node(8, 80, None), {"tensor_parallel_size": 2})["gpu"] == 2
    assert of_judge(Node(4, 24, None))["gpu"] == 4, "too few, but all there are"


def test_decoding_and_scoring_get_fewer_rows_and_tokens_on_a_small_card(config):
    config["generate"]["engine"] = "transformers"
    config["mt_bench"]["max_tokens"] = 2048
    own = ENGINE | {"endpoint": "null"}
    found = derived.resources(config, Node(1, 24, None), own, {}, {"model": ["sft"]}, {})
    assert 1 <= found["batch_size"] < 256 and "gpu" not in found
    roles = {"model": ["reward_model"]}
    large = derived.resources(config, Node(1, 80, None), SCORING, {}, roles, {"reward": "reward_model"})
    assert large["batch_tokens"] == 16384
    tight = derived.resources(config, Node(1, 3, None), SCORING, {}, roles, {"reward": "reward_model"})
    assert tight["batch_tokens"] < 16384


def test_without_a_known_card_only_the_memory_is_derived(config):
    found = of_policy(config, Node(None, None, None))
    assert {name: found[name] for name in TRAINING if name != "mem_mb"} == {
        name: value for name, value in TRAINING.items() if name != "mem_mb"
    }
    assert found["mem_mb"] > 32_000


def test_without_gpus_the_machine_holds_all_of_it(config):
    found = of_policy(config, Node(0, None, None))
    assert found["mem_mb"] > 100_000 and found["gpu"] == 0
    at_a_login_node = of_policy(config, Node(8, 80, None), {"gpu": 0})
    assert at_a_login_node["mem_mb"] == found["mem_mb"]


def test_the_embedded_models_get_what_their_rules_say():
    for node in (Node(0, None, None), Node(None, None, None), Node(1, 24, None), Node(8, 80, None)):
        roles, gpu = {"model": ["sft"]}, {"gpu": 0 if node.gpus == 0 else 1}
        found = of_policy(COMPLETE, node)
        assert TRAINING | found == TRAINING | gpu
        own = ENGINE | {"endpoint": "null"}
        assert own | derived.resources(COMPLETE, node, own, {}, roles, {}) == own | gpu
        found = derived.resources(COMPLETE, node, SCORING, {}, roles, {"reference": "sft"})
        assert SCORING | found == SCORING | gpu


def test_a_policy_has_the_size_of_what_it_descends_from(config):
    assert derived.root(config, "dpo-1") == "sft" and derived.root(COMPLETE, "rebel-2") == "start"
    assert derived.size_of(config, "dpo-1") == sizes.of("policy")


def test_a_model_of_the_hub_has_no_size_before_it_is_fetched(config, tmp_path):
    config["models"]["sft"]["source"] = f"hub:some/model@{'0' * 40}"
    with pytest.raises(derived.NotFetched):
        of_policy(config, Node(8, 80, None))
    assert derived.to_fetch(config, "sft") == derived.TO_FETCH
    config["models"]["sft"]["pickled_weights"] = True
    assert derived.to_fetch(config, "sft") == derived.TO_CONVERT
    large_models.write(tmp_path / "results/models/sft", large_models.LLAMA_8B)
    assert of_policy(config, Node(8, 80, None))["gpu"] == 8
    assert derived.to_fetch(config, "sft") > 32_000


def test_lengths_that_follow_from_data_are_those_of_prompts_and_completions(config):
    config["tokenize"] |= {"max_prompt_length": "p95", "max_completion_length": None}
    limits = config["prompts"]["max_prompt_length"], config["generate"]["max_tokens"]
    assert derived.pair_lengths(config) == limits
    config["tokenize"] |= {"max_prompt_length": 100, "max_completion_length": 100, "max_length": 150}
    assert derived.pair_lengths(config) == (100, 50)


def refused(config, node, own, roles, wildcards, trains=None, **changed):
    """Return what is said of a job with what is derived for it, and with what is `changed`."""
    settings = own | derived.resources(config, node, own, changed, roles, wildcards, trains) | changed
    wrong = derived.mismatched(config, settings, roles, wildcards)
    return wrong or derived.too_large(config, node, settings, roles, wildcards, trains)


def test_gpus_that_cannot_share_a_served_model_are_refused(config):
    of_judge, node = (ENGINE | {"endpoint": JUDGE}, {"model": ["judge"]}, {}), Node(8, 80, None)
    assert refused(config, node, *of_judge) is None
    said = refused(config, node, *of_judge, tensor_parallel_size=3)
    assert said == "tensor_parallel_size 3 does not divide the 64 attention heads of judge"
    said = refused(config, node, *of_judge, tensor_parallel_size=4, gpu=2)
    assert said == "tensor_parallel_size is 4, but the job has 2 GPUs"


def test_methods_with_all_rows_at_once_are_told_that_a_smaller_step_helps(config):
    about = TRAINING, {"model": ["sft"], "reference": ["sft"]}, RUN, ("kto", config["train"])
    assert "smaller global_batch_size helps, too" in refused(config, Node(1, 80, None), *about)


@pytest.mark.parametrize(("gres", "gpus"), [("gpu", 1), ("gpu:2", 2), ("gpu:a100", 1), ("gpu:a100:8", 8)])
def test_slurm_s_forms_of_gpus_are_counted(config, gres, gpus):
    assert derived.gpus_of(gres) == gpus
    assert of_policy(config, Node(8, 80, None), {"gpu": 0, "gres": gres})["gpu"] == gpus
