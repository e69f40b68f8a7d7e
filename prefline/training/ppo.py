"""PPO on this project's prompts and rewards.

TRL's PPOTrainer (trl.experimental.ppo, gone in 1.13) makes the models, the optimizer and the learning rates;
the loop is here. TRL's loop puts the reward one place behind the last token, where it also trains a value,
unless the completion is the longest of its batch: a completion's advantages then depend on its neighbors. Its
rewards come from a model that reads the policy's ids, and it computes in float32 even if `bf16` is set.

There are no checkpoints, so that a training that was interrupted begins again.
"""

import contextlib
import itertools
import math
import signal
import sys
import time
from typing import NamedTuple

import torch
from transformers import PrinterCallback
from trl.experimental.ppo import PPOTrainer
from trl.trainer.utils import entropy_from_logits, selective_log_softmax

from prefline import engines
from prefline.errors import InputError
from prefline.rewards.online import Sampled
from prefline.training import log, loop, mismatch, process, samplers, schedules, trackers, warning_signs


class Stand(torch.nn.Module):
    """A placeholder for the reward model that PPOTrainer expects."""


class Rollout(NamedTuple):
    """Completions of n prompts, padded to c tokens, and their training signal."""

    ids: torch.Tensor  # int64 [n, p + c]: prompts, padded on the left, and completions
    attention: torch.Tensor  # bool [n, p + c]: tokens that are not padding
    mask: torch.Tensor  # bool [n, c]: tokens of completions that have a reward
    logps: torch.Tensor  # float32 [n, c], as of the other tensors
    values: torch.Tensor
    advantages: torch.Tensor
    returns: torch.Tensor
    ratios: torch.Tensor  # that correct for another sampler (mismatch.ratios)


def advantages(rewards, values, mask, gamma, lam):
    """Return the generalized advantages (Schulman et al. 2016, arXiv 1506.02438) and the returns.

    rewards, values: float [n, c], of each token; mask: bool [n, c], the tokens of completions. The value
    behind the last token is 0, and so is everything outside the mask.
    """
    rewards, values = rewards * mask, values * mask
    found, following = torch.zeros_like(values), torch.zeros_like(values[:, 0])
    after = torch.cat([values[:, 1:], torch.zeros_like(values[:, :1])], dim=1)
    for place in reversed(range(values.shape[1])):
        delta = rewards[:, place] + gamma * after[:, place] - values[:, place]
        following = (delta + gamma * lam * following) * mask[:, place]
        found[:, place] = following
    return found, found + values


def mean(values, mask):
    """Return the mean of `values` within the mask, 0 if that is empty."""
    return (values * mask).sum() / mask.sum().clamp(min=1)


def whitened(values, mask):
    """Return `values` with mean 0 and deviation 1 within the mask, and 0 outside."""
    centered = (values - mean(values, mask)) * mask
    variance = centered.square().sum() / (mask.sum() - 1).clamp(min=1)
    return centered * torch.rsqrt(variance + 1e-8)


def loss(args, rollout, logps, values):
    """Return (policy loss, value loss, share of clipped tokens) of an update, means over the mask.

    args: PPOConfig; logps, values: float32 [n, c], those of the policy and value model that are trained.
    """
    ratio = (logps - rollout.logps).exp()
    cut = ratio.clamp(1 - args.cliprange, 1 + args.cliprange)
    gains, cut_gains = ratio * rollout.advantages, cut * rollout.advantages
    near = values.clamp(rollout.values - args.cliprange_value, rollout.values + args.cliprange_value)
    errors = torch.max((values - rollout.returns).square(), (near - rollout.returns).square())
    return (
        mean(-torch.min(gains, cut_gains) * rollout.ratios, rollout.mask),
        mean(errors, rollout.mask) / 2,
        mean((cut_gains < gains).float(), rollout.mask).detach(),
    )


class PPO(schedules.AboveZero, PPOTrainer):
    """PPO. prompts, rewards, ends, stop_at: as in online_trainers.Online."""

    def __init__(self, *args, prompts, rewards, ends, stop_at, **kwargs):
        super().__init__(*args, reward_model=Stand(), data_collator=list, **kwargs)
        self.prompts, self.rewards, self.ends, self.stop_at = prompts, rewards, ends, stop_at
        self.completer, self.max_ratio = samplers.Transformers(self.accelerator, ends), None
        self.reports = None  # where somebody may watch, in the process that writes
        if self.args.gradient_checkpointing:
            self.accelerator.unwrap_model(self.model).gradient_checkpointing_enable()
            self.value_model.gradient_checkpointing_enable()
        self.remove_callback(PrinterCallback)

    def train(self):
        args, device = self.args, self.accelerator.device
        self.model.train()
        self.state.max_steps = args.num_total_batches
        batches = itertools.chain.from_iterable(itertools.repeat(self.dataloader))
        for batch in itertools.islice(batches, args.num_total_batches):
            rollout, measured = self.sample([row["prompt"] for row in batch])
            steps = [self.update(rollout) for _ in range(args.num_ppo_epochs)]
            names = ("loss/policy", "loss/value", "clip_ratio")
            measured |= dict(zip(names, torch.tensor(steps).mean(dim=0).tolist(), strict=True))
            gathered = self.accelerator.gather(torch.tensor([list(measured.values())], device=device))
            self.state.global_step += 1
            self.state.episode += args.batch_size
            self.state.epoch = self.state.episode / self.train_dataset_len
            self.log(dict(zip(measured, gathered.nanmean(dim=0).tolist(), strict=True)))
            self.lr_scheduler.step()

    @torch.no_grad()
    def sample(self, names):
        """Return (Rollout, {name: float} of the log) of a completion to each prompt."""
        prompts = [self.prompts[name]["prompt_ids"] for name in names]
        made = self.complete(names)
        completions = [completion.ids for completion in made]
        self.sampled = names
        scores, measured = self.score(names, completions)
        tensors = [samplers.padded(prompts, "left"), samplers.padded(completions, "right")]
        ids, attention = (torch.cat(both, dim=1).to(scores.device) for both in zip(*tensors, strict=True))
        said = tensors[1][1].to(scores.device)
        logps, entropies, values = self.forward(self.model, ids, attention, said.shape[1])
        ref_logps, *_ = self.forward(self.ref_model, ids, attention, said.shape[1])
        differences, compared = self.compare(made, logps, said)
        measured |= compared
        # A completion without a reward has no part.
        mask = said & ~scores.isnan()[:, None]
        kl = (logps - ref_logps) * mask
        rewards = -self.args.kl_coef * kl
        rewards[torch.arange(len(said)), said.sum(dim=1) - 1] += scores.nan_to_num()
        values = values * mask
        found, returns = advantages(rewards, values, mask, self.args.gamma, self.args.lam)
        known, lengths = scores[~scores.isnan()], said.sum(dim=1).float()
        cut = [completion[-1] not in self.ends for completion in completions]
        measured |= {
            "reward": scores.nanmean().item(),
            "reward_std": known.std(correction=0).item() if known.min() < known.max() else 0.0,
            "kl": mean(kl, mask).item(),
            "entropy": mean(entropies, said).item(),
            "completions/mean_length": lengths.mean().item(),
            "completions/max_length": lengths.max().item(),
            "completions/clipped_ratio": sum(cut) / len(cut),
        }
        ratios = mismatch.ratios(differences, self.max_ratio)
        rollout = Rollout(ids, attention, mask, logps, values, whitened(found, mask), returns, ratios)
        return rollout, measured

    def compare(self, made, logps, said):
        """Return (differences [n, c], {name: float} of the log) of log-probabilities and the sampler's.

        made: list of engines.Completion; logps: float [n, c]; said: bool [n, c], tokens of completions. The
        differences are 0 of a sampler that is the trainer's own model. InputError as mismatch.check.
        """
        if made[0].logps is None:
            return torch.zeros_like(logps), {}
        sampled = mismatch.rows([completion.logps for completion in made], logps)
        measured = mismatch.measure(logps, sampled, said)
        dtype = "bfloat16" if self.args.bf16 else "float32"
        mismatch.check(measured, dtype, f"step {self.state.global_step + 1}")
        return (logps - sampled) * said, measured

    @torch.no_grad()
    def use(self, completer, max_ratio, names):
        """Sample with another sampler than transformers', after a trial; as Online.use."""
        self.completer, self.max_ratio = completer, max_ratio
        made = self.complete(names)
        said = samplers.padded([completion.ids for completion in made], "right")[1]
        asked = samplers.requests(0, names, [self.prompts[name]["prompt_ids"] for name in names], 0)
        ids, attention, tokens = samplers.batch(asked, made)
        device = self.accelerator.device
        logps, *_ = self.forward(self.model, ids.to(device), attention.to(device), tokens)
        self.compare(made, logps, said.to(device))

    def complete(self, names):
        """Return an engines.Completion, with the end token, to each of the prompts called `names`."""
        prompts = [self.prompts[name]["prompt_ids"] for name in names]
        step, first = self.state.global_step, self.accelerator.process_index * len(names)
        asked = samplers.requests(self.args.seed, names, prompts, step, first)
        sampling = engines.Sampling(self.args.temperature, 1.0, 0, self.args.response_length)
        with self.computing():
            policy = self.accelerator.unwrap_model(self.model).policy
            return self.completer.sample(policy, asked, sampling, step)

    def score(self, names, completions):
        """Return (float32 [n], {"rewards/NAME": mean}) of completions; NaN without a reward."""
        samples = [Sampled(self.prompts[name], ids) for name, ids in zip(names, completions, strict=True)]
        rewarded = self.rewards(samples, f"step {self.state.global_step + 1}")
        parts = {
            f"rewards/{name}": torch.tensor(part).nanmean().item() for name, part in rewarded.parts.items()
        }
        parts |= {f"rewards/{name}/failed": share for name, share in rewarded.failed.items()}
        return torch.tensor(rewarded.reward, dtype=torch.float32, device=self.accelerator.device), parts

    def forward(self, model, ids, attention, tokens):
        """Return float32 [n, tokens] of the last tokens: log-probabilities, entropies, and values or None."""
        with self.computing():
            made = model(
                input_ids=ids,
                attention_mask=attention,
                position_ids=(attention.cumsum(dim=1) - 1).clamp(min=0),
                output_hidden_states=model is not self.ref_model,
                return_dict=True,
            )
        made, values = (made, None) if model is self.ref_model else made
        logits = made.logits[:, -tokens - 1 : -1].float() / self.args.temperature
        with torch.no_grad():
            entropies = entropy_from_logits(logits)
        values = None if values is None else values[:, -tokens - 1 : -1, 0].float()
        return selective_log_softmax(logits, ids[:, -tokens:]), entropies, values

    def update(self, rollout):
        """Take an optimizer step; return its losses and its share of clipped tokens (list of float)."""
        logps, _, values = self.forward(self.model, rollout.ids, rollout.attention, rollout.mask.shape[1])
        policy, value, clipped = loss(self.args, rollout, logps, values)
        self.accelerator.backward(policy + self.args.vf_coef * value)
        if self.args.max_grad_norm:
            self.accelerator.clip_grad_norm_(self.model.parameters(), self.args.max_grad_norm)
        self.optimizer.step()
        self.optimizer.zero_grad()
        return [policy.item(), value.item(), clipped.item()]

    def computing(self):
        """Return a context that computes in the training's dtype.

        Each call has a separate autocast: one around the whole training would keep copies of the weights from
        before an optimizer step.
        """
        return torch.autocast(self.accelerator.device.type, torch.bfloat16, enabled=self.args.bf16)

    def log(self, logs, start_time=None):
        """Log an update with its loss, which must be finite as the new weights must be: else InputError."""
        logs = {name: value for name, value in logs.items() if not math.isnan(value) or "loss" in name}
        logs["loss"] = logs["loss/policy"] + self.args.vf_coef * logs["loss/value"]
        logs["learning_rate"] = self.lr_scheduler.get_last_lr()[0]
        step, last = self.state.global_step, self.state.max_steps
        wrong = None if math.isfinite(logs["loss"]) else f"the loss became {logs['loss']}"
        # The loss is from before the last update, and with weights such as these sampling fails.
        if wrong is None and not all(weights.isfinite().all() for weights in self.model.parameters()):
            wrong = "the weights became nan or infinite"
        if wrong is not None:
            raise InputError(
                f"{wrong} at step {step} of {last}, in the completions of prompt_id "
                f"{', '.join(self.sampled[: loop.ROWS_NAMED])}; check their rewards, or lower "
                "learning_rate; ppo has no checkpoints"
            )
        if process.is_main() and (step % log.steps_per_row(last) == 0 or step == last):
            print(
                f"step {step}/{last}  loss {logs['loss']:.4f}  reward {logs['reward']:.4f}  "
                f"kl {logs['kl']:.4f}",
                flush=True,
            )
        super().log(logs, start_time)
        if self.reports is not None:
            self.reports.write(step, self.state.log_history[-1])
        warning_signs.check(self.state, self.stop_at)


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
        with watched as ppo.reports:
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
