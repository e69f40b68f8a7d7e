"""TRL's PPOTrainer (trl.experimental.ppo, gone in 1.13) on this project's prompts and rewards.

TRL takes its rewards from a model with a score head that reads the policy's own token ids, ends a completion
at one end token, and computes in float32 whatever `bf16` says. Here `adapted` puts any rewards.online.Rewards
in that model's place and has everything computed in the training's dtype, and all end tokens end a
completion. PPO's loop is TRL's own: it has no checkpoints, so that a training that was interrupted begins
again.
"""

import contextlib
import math
import signal
import sys
import time
from unittest import mock

import torch
from transformers import PrinterCallback
from trl.experimental.ppo import PPOTrainer, ppo_trainer
from trl.experimental.utils import first_true_indices

from prefline.errors import InputError
from prefline.rewards.online import Sampled
from prefline.training import log, loop, process, trackers


class Stand(torch.nn.Module):
    """Stands where PPOTrainer expects a reward model."""


class PPO(PPOTrainer):
    """PPOTrainer; prompts and rewards: as of online_trainers.Online, ends likewise."""

    def __init__(self, *args, prompts, rewards, ends, **kwargs):
        super().__init__(*args, reward_model=Stand(), **kwargs)
        self.by_ids = {tuple(row["prompt_ids"]): row for row in prompts.values()}
        self.rewards = rewards
        self.reports = None  # where somebody may watch, in the process that writes
        # TRL's one stop token is cut at afterwards; what ends with another is padded from there on.
        self.policy_model.generation_config.eos_token_id = list(ends)
        self.policy_model.generation_config.pad_token_id = self.processing_class.pad_token_id
        if self.args.gradient_checkpointing:
            self.accelerator.unwrap_model(self.model).gradient_checkpointing_enable()
            self.value_model.gradient_checkpointing_enable()
        self.remove_callback(PrinterCallback)

    def score(self, query_responses, context_length):
        """The rewards (float32 [n]) of rows of a padded prompt and a padded completion, int64 [n, tokens]."""
        padding, samples = self.processing_class.pad_token_id, []
        for row in query_responses.tolist():
            prompt = tuple(token for token in row[:context_length] if token != padding)
            ids = row[context_length:]
            ids = ids[: ids.index(padding)] if padding in ids else ids
            samples.append(Sampled(self.by_ids[prompt], ids))
        self.sampled = [sample.prompt["prompt_id"] for sample in samples]
        rewarded = self.rewards(samples, f"step {self.state.global_step + 1}").reward
        rewards = torch.tensor(rewarded, dtype=torch.float32, device=query_responses.device)
        # What has no reward is neither good nor bad.
        return torch.nan_to_num(rewards, nan=rewards.nanmean().item())

    def log(self, logs, start_time=None):
        """Log an update with its loss, which must be finite as the new weights must be: else InputError."""
        logs["loss"] = logs["loss/policy_avg"] + self.args.vf_coef * logs["loss/value_avg"]
        logs["learning_rate"] = logs.pop("lr")
        del logs["eps"]  # completions per second
        step, last = self.state.global_step, self.state.max_steps
        wrong = None if math.isfinite(logs["loss"]) else f"the loss became {logs['loss']}"
        # The loss is from before the last update, and with weights such as these sampling fails.
        if wrong is None and not all(weights.isfinite().all() for weights in self.model.parameters()):
            wrong = "the weights became nan or infinite"
        if wrong is not None:
            raise InputError(
                f"{wrong} at step {step} of {last}, in the completions of prompt_id "
                f"{', '.join(self.sampled[: loop.ROWS_NAMED])}; look at their rewards, or lower "
                "learning_rate; ppo has no checkpoints"
            )
        if process.is_main() and (step % log.steps_per_row(last) == 0 or step == last):
            print(
                f"step {step}/{last}  loss {logs['loss']:.4f}  reward {logs['objective/scores']:.4f}  "
                f"kl {logs['objective/kl']:.4f}",
                flush=True,
            )
        super().log(logs, start_time)
        if self.reports is not None:
            self.reports.write(step, self.state.log_history[-1])


@contextlib.contextmanager
def adapted(ppo):
    """Within, TRL's PPO asks `ppo` for rewards, and computes in bfloat16 where its arguments say so.

    Accelerate's mixed precision would not do: TRL samples from the policy, and asks the value model for the
    rollout's values, without the wrapper that accelerate puts around both. Logits and values come back in
    float32, so that log-probabilities and losses are. Each call has an autocast of its own: one around the
    whole training would keep its copies of the weights from before an optimizer step.
    """
    autocast = torch.autocast(ppo.accelerator.device.type, torch.bfloat16, enabled=ppo.args.bf16)
    value_of = autocast(ppo_trainer.get_reward)
    logits_of = autocast(ppo_trainer.forward)

    def get_reward(model, query_responses, pad_token_id, context_length):
        if not isinstance(model, Stand):
            values, *others = value_of(model, query_responses, pad_token_id, context_length)
            return values.float(), *others
        ends = first_true_indices(query_responses[:, context_length:] == pad_token_id) - 1 + context_length
        return None, ppo.score(query_responses, context_length), ends

    def forward(model, query_responses, pad_token_id):
        output = logits_of(model, query_responses, pad_token_id)
        if model is ppo.ref_model:
            output.logits = output.logits.float()
            return output
        output, values = output
        output.logits = output.logits.float()
        return output, values.float()

    with mock.patch.multiple(
        ppo_trainer,
        batch_generation=autocast(ppo_trainer.batch_generation),
        get_reward=get_reward,
        forward=forward,
    ):
        yield


def fit(ppo, settings, key):
    """Train from the beginning; writes settings.log_csv, and returns what is to know of it, as loop.fit does.

    TRL counts no tokens here: "train_completions" takes the place of "train_tokens" and its rates. key: str
    from results.work_key. On SIGTERM it exits with status 143.
    """
    watched = contextlib.nullcontext()
    if process.is_main():
        watched = contextlib.closing(trackers.Reports(settings, key, 0))
    started = time.monotonic()
    before = signal.signal(signal.SIGTERM, _terminated)
    try:
        with watched as ppo.reports, adapted(ppo):
            ppo.train()
    finally:
        signal.signal(signal.SIGTERM, before)
    history = [step for step in ppo.state.log_history if "loss" in step]
    seconds = time.monotonic() - started
    if process.is_main():
        log.write(settings.log_csv, history)
    return {
        "train_loss": math.fsum(step["loss"] for step in history) / len(history),
        "train_steps": len(history),
        "train_completions": ppo.state.episode,
        "train_runtime": round(seconds, 3),
        **loop.peak_memory(),
    }


def _terminated(*_):
    print("stopped by SIGTERM; ppo has no checkpoints and will begin again", flush=True)
    sys.exit(loop.TERMINATED)
