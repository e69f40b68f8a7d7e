"""Sample and score a policy's completions to held-out prompts, for trainings that sample.

Each prompt is answered SAMPLES times, each time with a separate seed, so that the means before and after a
training do not depend on batches, devices or draws in between.
"""

import torch

from prefline import engines, seeds
from prefline.architectures import exact
from prefline.engines.model_files import ModelFiles
from prefline.engines.transformers import Engine
from prefline.errors import InputError
from prefline.rewards.online import Sampled
from prefline.training import logps, process, sharding

SAMPLES = 4
NAMES = ("reward", "kl", "completions/mean_length", "completions/clipped_ratio")


class Sampler(Engine):
    """The `transformers` engine on a model in memory; directory: where its tokenizer and end tokens are.

    batch_size: int, completions decoded together.
    """

    def __init__(self, directory, model, batch_size):
        self.files = ModelFiles(directory)
        self.tokenizer, self.end_tokens = self.files.tokenizer, self.files.end_tokens
        self.batch_size, self.model, self.device = batch_size, model, model.device
        self.way = exact.decoding(model.config, model.config._attn_implementation)


def evaluate(settings, sampling, model, reference, accelerator, prompts, rewards, when, batch_tokens):
    """Return (means, completions): {TRL's name: float} over SAMPLES completions to each prompt, and these.

    settings: the training's Settings; sampling: an engines.Sampling; reference: the reference model; prompts:
    rows of tables.PROMPTS, of which this process takes every world_size-th; rewards: a
    rewards.online.Rewards; when: str, for messages; batch_tokens: int, most tokens at once, of a forward pass
    and of completions decoded together with their prompts. The models compute in settings.dtype, as they do
    while training. The reward is the weighted sum without normalization, less the penalties. kl: of the
    policy from the reference, nats per completion, as the mean log-ratio of the samples. Samples without a
    reward are left out of all means; InputError if none has one. The completions are this process's: a list
    of (prompt ids, completion ids).
    """
    own = prompts[accelerator.process_index :: accelerator.num_processes]
    asked = [(prompt, sample) for prompt in own for sample in range(SAMPLES)]
    requests = [
        engines.Request(
            prompt["prompt_ids"],
            seeds.derive(settings.seed, "held out", prompt["prompt_id"], sample),
            f"prompt_id {prompt['prompt_id']}",
        )
        for prompt, sample in asked
    ]
    training = model.training
    model.to(accelerator.device).eval()  # weights that FSDP2 has yet to shard are on the CPU
    longest = max((len(prompt["prompt_ids"]) for prompt in own), default=0) + sampling.max_tokens
    computing = torch.autocast(accelerator.device.type, torch.bfloat16, enabled=settings.dtype == "bfloat16")
    with sharding.whole(model, reference), computing:
        sampler = Sampler(settings.model, model, max(batch_tokens // longest, 1))
        made = sampler.generate(requests, sampling)
        samples = [
            Sampled(prompt, completion.ids) for (prompt, _), completion in zip(asked, made, strict=True)
        ]
        kl = _logps(model, samples, sampling.temperature, batch_tokens)
        kl -= _logps(reference, samples, sampling.temperature, batch_tokens)
    totals = torch.zeros(len(NAMES) + len(rewards.sections) + 1, dtype=torch.float64)
    if samples:
        rewarded = rewards(samples, f"held-out prompts {when}", normalize=False)
        clipped = [completion.finish_reason == "length" for completion in made]
        rows = [rewarded.reward, kl, [len(sample.ids) for sample in samples], clipped]
        rows = torch.stack(
            [torch.as_tensor(row, dtype=torch.float64) for row in (*rows, *rewarded.parts.values())]
        )
        scored = rows.isfinite().all(dim=0)
        totals = torch.cat([rows[:, scored].sum(dim=1), scored.sum()[None]])
    model.train(training)
    if process.world_size() > 1:
        totals = accelerator.reduce(totals.to(accelerator.device)).cpu()
    *sums, number = totals.tolist()
    if not number:
        raise InputError(
            f"held-out prompts {when}: no completion has both a reward and a finite log-probability; lower "
            "learning_rate, or check the rewards"
        )
    names = [*NAMES, *(f"rewards/{name}" for name in rewards.sections)]
    means = {name: value / number for name, value in zip(names, sums, strict=True)}
    return means, [(sample.prompt["prompt_ids"], sample.ids) for sample in samples]


def _logps(model, samples, temperature, batch_tokens):
    """Return log-probabilities of the completions: float64 (len(samples),); InputError as in logps.check."""
    logps.check(model)
    sums = torch.empty(len(samples), dtype=torch.float64)
    prompts = [sample.prompt["prompt_ids"] for sample in samples]
    completions = [sample.ids for sample in samples]
    for rows, values in logps.score(model, prompts, completions, temperature, batch_tokens):
        sums[rows] = torch.tensor(values, dtype=torch.float64)
    return sums
