"""TRL's RLOOTrainer and GRPOTrainer on this project's prompts, rewards and checkpoints.

A prompt is the ids of its row: TRL would render the template, or tokenize text, and put a second BOS before
it. A completion ends at any of the model's end tokens, not only at the tokenizer's. A completion without a
reward has no part in a step: TRL only sets its advantage to 0. Each epoch has a separate order, and
checkpoints contain the completions that later steps still need, so that a resumed training ends where an
uninterrupted one does.
"""

import json
import logging
import math
from pathlib import Path
from unittest import mock

import torch
from safetensors.torch import load_file, save_file

from prefline import engines
from prefline.errors import InputError
from prefline.rewards.online import Sampled
from prefline.training import (
    mismatch,
    precision,
    resampling,
    samplers,
    schedules,
    sharding,
    warning_signs,
)
from prefline.training.warning_signs import DIFFERING

# TRL imports what there is of vLLM, and fails at versions that it does not know; it is not used here.
with mock.patch("trl.import_utils.is_vllm_available", return_value=False):
    from trl import GRPOConfig, GRPOTrainer, RLOOConfig, RLOOTrainer

# It warns that the settings of the reference are not those of the policy, which is there already.
logging.getLogger("trl").setLevel(logging.ERROR)

REPLACED = "rewards/resampled"  # share of a step's prompts that another one took the place of
CONFIGS = {"rloo": RLOOConfig, "grpo": GRPOConfig}
# TRL's columns that are left out: mismatch.measure has the first, and the others are extremes.
OF_TRL = (
    "sampling/sampling_logp_difference/",
    "sampling/importance_sampling_ratio/min",
    "sampling/importance_sampling_ratio/max",
)


class Online(schedules.AboveZero):
    """The part that both share; a base class to put before one of TRL's trainers.

    prompts: {prompt_id: row of tables.PROMPTS}, of train_dataset, whose column `prompt` has the prompt_ids;
    rewards: a rewards.online.Rewards; ends: ids of the end tokens; resamplings: int, more rounds of sampling
    at most in a step; stop_at: list of names of warning_signs.SIGNS.
    """

    def __init__(self, *args, prompts, rewards, ends, resamplings, stop_at, **kwargs):
        self.resamplings, self.stop_at = resamplings, stop_at
        self.prompts, self.rewards, self.ends = prompts, rewards, set(ends)
        super().__init__(*args, reward_funcs=self.reward, **kwargs)
        self.completer, self.max_ratio = samplers.Transformers(self.accelerator, ends), None
        self.attempt, self.said = 0, None

    def use(self, completer, max_ratio, names):
        """Sample with another sampler than transformers', after a trial; InputError if that fails.

        max_ratio: float, the largest ratio that corrects what it samples (mismatch.ratios), or None; names:
        prompt_ids, for the trial.
        """
        self.completer, self.max_ratio = completer, max_ratio
        computing = torch.autocast(self.accelerator.device.type, torch.bfloat16, enabled=self.args.bf16)
        with torch.no_grad(), computing:
            self._tokenize_prompts(names)
            ids, attention, tokens = samplers.batch(self.requests, self._sample())
            device = self.accelerator.device
            self._get_per_token_logps_and_entropies(
                self.model, ids.to(device), attention.to(device).long(), tokens
            )
        self._metrics["train"].clear()

    def reward(self, prompts, completion_ids, **_):
        """Return the rewards of a batch, as TRL wants them of a reward function."""
        self.sampled += dict.fromkeys(prompts)
        samples = [
            Sampled(self.prompts[name], ids) for name, ids in zip(prompts, completion_ids, strict=True)
        ]
        rewarded = self.rewards(samples, f"step {self.state.global_step + 1}")
        metrics = self._metrics["train" if self.model.training else "eval"]
        for name, values in rewarded.parts.items():
            gathered = self.accelerator.gather(torch.tensor(values, device=self.accelerator.device))
            metrics[f"rewards/{name}"].append(gathered.nanmean().item())
        for name, share in rewarded.failed.items():
            shares = self.accelerator.gather(torch.tensor(share, device=self.accelerator.device))
            metrics[f"rewards/{name}/failed"].append(shares.mean().item())
        return [None if math.isnan(reward) else reward for reward in rewarded.reward.tolist()]

    def rows_of_step(self):
        """Return the names (list of str) of the prompts whose completions were in the last step."""
        return [f"prompt_id {name}" for name in self.sampled]

    def log(self, logs, start_time=None):
        metrics = self._metrics["train" if self.model.training else "eval"]
        # Times differ from run to run, and TRL turns what has no value at a step into null.
        for name in [name for name, values in metrics.items() if all(map(math.isnan, values))]:
            del metrics[name]
        metrics.pop("step_time", None)
        for name in [name for name in metrics if name.startswith(OF_TRL)]:
            del metrics[name]
        super().log(logs, start_time)
        if "loss" in logs:
            warning_signs.check(self.state, self.stop_at)

    def _generate_and_score_completions(self, inputs):
        """Return a batch of completions; groups without a difference in reward may be resampled."""
        self.sampled, self.attempt = [], 0
        batch, differing = self._scored(inputs)
        if self.model.training and self.resamplings:
            idle = self._share(~differing)
            for number in range(self.resamplings):
                if self._share(differing) == 1:
                    break
                names = resampling.other_prompts(
                    list(self.prompts),
                    self.args.data_seed,
                    self.state.global_step,
                    number,
                    len(inputs),
                    (self.accelerator.process_index, self.accelerator.num_processes),
                    self.num_generations,
                )
                self.attempt = number + 1
                other = self._scored([{"prompt": name} for name in names])
                batch, differing = resampling.replaced(batch, differing, *other, self.num_generations)
            self._metrics["train"][REPLACED].append(idle - self._share(~differing))
        return self._without_unscored(batch)

    def _scored(self, inputs):
        """Return TRL's batch with a tensor `scored`, and bool [groups]: whether a group's rewards differ.

        Where devices share groups, there is a bool for every num_generations rows.
        """
        batch = super()._generate_and_score_completions(inputs)
        own = slice(self.accelerator.process_index * len(inputs), None)
        batch["scored"] = self._is_scored[own][: len(inputs)]
        return batch, self._differing[own][: len(inputs) : self.num_generations]

    def _calculate_rewards(self, *args, **kwargs):
        """Return TRL's rewards of all devices [rows, 1], and note which rows have one and which differ.

        TRL's RLOO counts the groups that differ only after it has added the KL from the reference.
        """
        rewards = super()._calculate_rewards(*args, **kwargs)
        self._is_scored = ~rewards[:, 0].isnan()
        groups = rewards[:, 0].view(-1, self.num_generations)
        low, high = groups.nan_to_num(nan=math.inf), groups.nan_to_num(nan=-math.inf)
        differing = high.amax(dim=1) > low.amin(dim=1)
        self._differing = differing.repeat_interleave(self.num_generations)
        self._metrics["train" if self.model.training else "eval"][DIFFERING].append(
            differing.float().mean().item()
        )
        return rewards

    def _without_unscored(self, batch):
        """Return a batch in which completions without a reward have no part in the loss."""
        scored = batch.pop("scored")
        batch["completion_mask"] = batch["completion_mask"] * scored[:, None]
        if "num_items_in_batch" in batch:  # of grpo: the tokens of all devices
            batch["num_items_in_batch"] = self.accelerator.gather(batch["completion_mask"].sum()).sum()
        else:  # of rloo, whose loss is a mean over all rows
            batch["old_logps"] = batch["old_logps"] * scored
            batch["advantages"] = batch["advantages"] / max(self._share(scored), 1e-9)
        return batch

    def _share(self, where):
        """Return the share (float) of a bool tensor's elements that are true, over all devices."""
        return self.accelerator.gather(where.float()).mean().item()

    def _generate(self, prompts):
        """Return TRL's completions, and correct its log: a completion may end with any end token."""
        made = super()._generate(prompts)
        metrics = self._metrics["train" if self.model.training else "eval"]
        cut = torch.tensor([ids[-1] not in self.ends for ids in made[1]], device=self.accelerator.device)
        metrics["completions/clipped_ratio"][-1] = self._share(cut)
        for name in ("mean", "min", "max"):
            del metrics[f"completions/{name}_terminated_length"]
        return made

    def _tokenize_prompts(self, prompts):
        ids = [self.prompts[name]["prompt_ids"] for name in prompts]
        self.requests = samplers.requests(
            self.args.data_seed,
            prompts,
            ids,
            self.state.global_step,
            self.accelerator.process_index * len(prompts),
            self.num_generations,
            self.attempt,
        )
        return ids, None, {}

    def _generate_single_turn(self, *_, **__):
        return [completion.ids for completion in self._sample()]

    def _sample(self):
        """Return an engines.Completion to each of `self.requests`."""
        policy = self.accelerator.unwrap_model(self.model)
        sampling = engines.Sampling(self.temperature, 1.0, 0, self.max_completion_length)
        with sharding.whole(self.model), precision.computing(policy):
            made = self.completer.sample(policy, self.requests, sampling, self.state.global_step)
        # Log-probabilities of a sampler that is not the trainer, to be compared with the trainer's next ones.
        self.said = None if made[0].logps is None else [completion.logps for completion in made]
        return made

    def _get_per_token_logps_and_entropies(self, model, ids, attention_mask, logits_to_keep, *args, **kwargs):
        found = super()._get_per_token_logps_and_entropies(
            model, ids, attention_mask, logits_to_keep, *args, **kwargs
        )
        if self.said is not None and model is self.model:
            mask = attention_mask[:, -logits_to_keep:]
            said, self.said = mismatch.rows(self.said, found[0]), None
            measured = mismatch.measure(found[0], said, mask)
            for name, value in measured.items():
                self._metrics["train"][name].append(value)
            dtype = "bfloat16" if self.args.bf16 else "float32"
            mismatch.check(measured, dtype, f"step {self.state.global_step + 1}")
            self.difference = (found[0] - said) * mask
        return found

    def _get_train_sampler(self, dataset=None):
        self.order = super()._get_train_sampler(dataset)
        return self.order

    def _run_epoch(self, *, epoch, **kwargs):
        # TRL's generator runs on from epoch to epoch, which a resumed training could not know.
        self.order.generator.manual_seed(self.args.data_seed + epoch)
        return super()._run_epoch(epoch=epoch, **kwargs)

    def _save_checkpoint(self, model, trial):
        super()._save_checkpoint(model, trial)
        if self.state.global_step % self.num_iterations:
            folder = Path(self._get_output_dir(trial), f"checkpoint-{self.state.global_step}")
            batches = [
                {name: tensor for name, tensor in batch.items() if tensor is not None}
                for batch in self._buffered_inputs
            ]
            # Values without rows, such as a number of tokens, belong to all batches.
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
                f"{writers} devices have written and {devices} cannot resume; train with {writers} again, "
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
    """Return the file of a process's completions in a checkpoint; process: its number, or * for any."""
    return f"completions_{process}.safetensors"


class RLOO(Online, RLOOTrainer):
    """RLOO; see Online."""

    def _scored(self, inputs):
        batch, differing = super()._scored(inputs)
        if self.max_ratio is not None:  # its loss is of whole completions, and linear in their advantages
            ratios = mismatch.ratios(self.difference.sum(dim=1), self.max_ratio)
            batch["advantages"] = batch["advantages"] * ratios
            self._metrics["train"]["sampling/importance_sampling_ratio/mean"].append(ratios.mean().item())
        return batch, differing


class GRPO(Online, GRPOTrainer):
    """GRPO; see Online."""

    def use(self, completer, max_ratio, names):
        super().use(completer, max_ratio, names)
        # TRL then computes the log-probabilities at sampling and has the ratios of tokens in its loss.
        self.use_vllm = self.vllm_importance_sampling_correction = True
        self.vllm_importance_sampling_mode = "token_truncate"
        self.vllm_importance_sampling_clip_min = 1.0 if max_ratio is None else None
        self.vllm_importance_sampling_clip_max = 1.0 if max_ratio is None else max_ratio

    def _generate_single_turn(self, *args, **kwargs):
        ids = super()._generate_single_turn(*args, **kwargs)
        return ids, self.said

    def _scored(self, inputs):
        batch, differing = super()._scored(inputs)
        # The mean of equal floats is not quite theirs, and TRL divides what is left by 1e-4.
        own = self._differing[self.accelerator.process_index * len(inputs) :][: len(inputs)]
        batch["advantages"] = batch["advantages"] * own
        return batch, differing


TRAINERS = {"rloo": RLOO, "grpo": GRPO}
