"""The sampler `vllm` beside the policy that is trained, by a real vLLM on this CPU.

Starting vLLM takes longer than all that it is asked, so that one process of its own serves all tests.
"""

import json
import os
import subprocess
import sys

import pytest

from prefline.errors import InputError
from prefline.training import methods

pytest.importorskip("vllm")


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    environment = {**os.environ, "PYTHONPATH": f"{os.getcwd()}:{os.getcwd()}/tests/helpers"}
    words = [sys.executable, "-m", "vllm_sampling", str(tmp_path_factory.mktemp("sampling"))]
    run = subprocess.run(words, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(run.stdout.splitlines()[-1])


@pytest.mark.long
@pytest.mark.parametrize("trained", ["full", "lora", "qlora"])
def test_after_each_step_the_sampler_has_the_weights_of_the_policy(found, trained):
    """Its greedy tokens are the policy's but for ties, and its log-probabilities but for rounding."""
    steps = found[trained]
    assert len(steps) == 20
    assert max(step["behind"] for step in steps) < 1e-4
    assert max(step["apart"] for step in steps) < 1e-4
    assert sum(step["changed"] > 0 for step in steps) > 12, "steps must change what is sampled"


@pytest.mark.long
def test_a_stale_sampler_stops_the_training(found):
    assert found["stale"].startswith("step 2: the sampler's log-probabilities are")


@pytest.mark.long
def test_a_completion_depends_on_its_prompt_and_seed_alone(found):
    assert found["same"]


@pytest.mark.long
def test_completions_end_at_any_end_token_or_are_cut_off(found):
    from online_training import ENDS

    assert {reason for reason, *_ in found["reasons"]} == {"stop", "length"}
    for reason, length, last in found["reasons"]:
        assert (last in ENDS) == (reason == "stop") and (reason == "stop" or length == 12)


@pytest.mark.long
def test_an_engine_leaves_the_process_its_random_numbers(found):
    assert found["states"]


def test_dropout_of_adapters_is_refused():
    """vLLM has none, so its log-probabilities would be others than the trainer's."""
    values = {"sampler": "vllm", "peft": {"lora_dropout": 0.1}, "global_batch_size": 8, "num_generations": 4}
    with pytest.raises(InputError, match=r"lora_dropout to 0, or take online\.sampler"):
        methods.check("rloo", values, {})
    methods.check("rloo", values | {"sampler": "transformers"}, {})
