"""TRL's RLOOTrainer and GRPOTrainer on this project's prompts, rewards and checkpoints.

They differ from TRL's in what they are given, not in what they minimize. A prompt is the ids of its row: TRL
would render the template, or tokenize text, and put a second BOS before it. A completion ends at any of the
model's end tokens, not only at the tokenizer's. Each epoch has an order of its own and completions that later
steps still need are in the checkpoint, so that a resumed training ends where an undisturbed one does.
"""

import json
import logging
import math
from pathlib import Path
from unittest import mock

import torch
from safetensors.torch import load_file, save_file

from prefline.errors import InputError
from prefline.rewards.online import Sampled
from prefline.training import sharding

# TRL imports what there is of vLLM, and fails at versions that it does not know; it is not used here.
with mock.patch("trl.import_utils.is_vllm_available", return_value=False):
    from trl import GRPOConfig, GRPOTrainer, RLOOConfig, RLOOTrainer

# It warns that the settings of the reference are not those of the policy, which is there already.
logging.getLogger("trl").setLevel(logging.ERROR)

CONFIGS = {"rloo": RLOOConfig, "grpo": GRPOConfig}


class Online:
    """What both have in common; to be put before one of TRL's trainers.

    prompts: {prompt_id: row of tables.PROMPTS}, of train_dataset, whose column `prompt` has the prompt_ids;
    rewards: a rewards.online.Rewards; ends: ids of the end tokens.
    """

    def __init__(self, *args, prompts, rewards, ends, **kwargs):
        self.prompts, self.rewards, self.ends = prompts, rewards, set(ends)
        super().__init__(*args, reward_funcs=self.reward, **kwargs)

    def reward(self, prompts, completion_ids, log_metric, **_):
        """The rewards of a batch, as TRL wants them of a reward function."""
        self.sampled = list(dict.fromkeys(prompts))
        samples = [
            Sampled(self.prompts[name], ids) for name, ids in zip(prompts, completion_ids, strict=True)
        ]
        rewarded = self.rewards(samples, f"step {self.state.global_step + 1}")
        for name, values in rewarded.parts.items():
            if not all(map(math.isnan, values)):
                log_metric(f"rewards/{name}", float(torch.tensor(values).nanmean()))
        return [None if math.isnan(reward) else reward for reward in rewarded.reward.tolist()]

    def rows_of_step(self):
        """Names (list of str) of the prompts whose completions the last step was made of."""
        return [f"prompt_id {name}" for name in self.sampled]

    def log(self, logs, start_time=None):
        metrics = self._metrics["train" if self.model.training else "eval"]
        # Times differ from run to run, and TRL turns what has no value at a step into null.
        for name in [name for name, values in metrics.items() if all(map(math.isnan, values))]:
            del metrics[name]
        metrics.pop("step_time", None)
        super().log(logs, start_time)

    def _tokenize_prompts(self, prompts):
        return [self.prompts[name]["prompt_ids"] for name in prompts], None, {}

    def _generate_single_turn(self, *args, **kwargs):
        with sharding.whole(self.model):
            made = super()._generate_single_turn(*args, **kwargs)
        if isinstance(made, tuple):  # GRPO's has log-probabilities beside them: of vLLM, else None
            return [self._until_end(ids) for ids in made[0]], made[1]
        return [self._until_end(ids) for ids in made]

    def _until_end(self, ids):
        """`ids` up to the first end token: TRL cuts at the tokenizer's only, and pads behind others."""
        end = next((place for place, token in enumerate(ids) if token in self.ends), len(ids))
        return ids[: end + 1]

    def _get_train_sampler(self, dataset=None):
        self.sampler = super()._get_train_sampler(dataset)
        return self.sampler

    def _run_epoch(self, *, epoch, **kwargs):
        # TRL's generator runs on from epoch to epoch, which a resumed training could not know.
        self.sampler.generator.manual_seed(self.args.data_seed + epoch)
        return super()._run_epoch(epoch=epoch, **kwargs)

    def _save_checkpoint(self, model, trial):
        super()._save_checkpoint(model, trial)
        if self.state.global_step % self.num_iterations:
            folder = Path(self._get_output_dir(trial), f"checkpoint-{self.state.global_step}")
            batches = [
                {name: tensor for name, tensor in batch.items() if tensor is not None}
                for batch in self._buffered_inputs
            ]
            # What has no rows, such as a number of tokens, is of all batches.
            tensors = {
                name: torch.cat([batch[name] for batch in batches]) if tensor.ndim else tensor.clone()
                for name, tensor in batches[0].items()
            }
            save_file(tensors, folder / _buffer(self.args.process_index))

    def _load_from_checkpoint(self, resume_from_checkpoint, model=None):
        super()._load_from_checkpoint(resume_from_checkpoint, model)
        checkpoint, devices = Path(resume_from_checkpoint), self.args.world_size
        writers = len(list(checkpoint.glob(_buffer("*"))))
        if writers and writers != devices:
            raise InputError(
                f"{checkpoint} lies between two steps on the same completions (num_iterations), which "
                f"{writers} devices have written and {devices} cannot take over; train with {writers} again, "
                f"or delete {checkpoint.parent} to begin again"
            )
        if writers:
            state = json.loads((checkpoint / "trainer_state.json").read_text(encoding="utf-8"))
            self._step = state["global_step"] * self.args.gradient_accumulation_steps
            tensors = load_file(
                checkpoint / _buffer(self.args.process_index), device=str(self.accelerator.device)
            )
            # Into batches of as many rows as this training takes at once, which may be fewer than before.
            parts = self.args.steps_per_generation
            cut = {
                name: tensor.chunk(parts) if tensor.ndim else [tensor] * parts
                for name, tensor in tensors.items()
            }
            self._buffered_inputs = [
                dict(zip(cut, batch, strict=True)) for batch in zip(*cut.values(), strict=True)
            ]


def _buffer(process):
    """The file of a process's completions in a checkpoint; process: its number, or * for any."""
    return f"completions_{process}.safetensors"


class RLOO(Online, RLOOTrainer):
    """RLOO; see Online."""


class GRPO(Online, GRPOTrainer):
    """GRPO; see Online."""


TRAINERS = {"rloo": RLOO, "grpo": GRPO}
