"""Sample completions from a policy while it is trained: ids in, ids out.

`online.sampler` names the sampler. All have one contract: `sample(policy, requests, sampling, version)`
returns an engines.Completion for each engines.Request, in their order, drawn with exactly the weights that
the module `policy` has. version: int, which a trainer changes with the weights. A sampler that computes with
other code than the trainer reports the log-probabilities of what it drew (`Completion.logps`), and the
trainer compares them with its own (mismatch.py). `report()` (dict) is for the metrics.

Here is the sampler `transformers`; vllm_sampler.py has `vllm`.
"""

import time

import torch
from transformers import GenerationConfig
from trl.models.utils import unwrap_model_for_generation
from trl.trainer.utils import pad

from prefline import engines, seeds


class Sampler:
    """The base class of all samplers; they have `_sample`, of what `sample` has; see the module."""

    seconds, tokens = 0.0, 0

    def sample(self, policy, requests, sampling, version):
        began = time.monotonic()
        made = self._sample(policy, requests, sampling, version)
        self.seconds += time.monotonic() - began
        self.tokens += sum(len(completion.ids) for completion in made)
        return made

    def report(self):
        return {"sampling_seconds": round(self.seconds, 3), "sampled_tokens": self.tokens}


class Transformers(Sampler):
    """transformers' `generate`, on the policy itself. It draws from torch's generator: seeds are not used.

    accelerator: the trainer's; ends: ids of the end tokens.
    """

    def __init__(self, accelerator, ends):
        self.accelerator, self.ends = accelerator, list(ends)

    def _sample(self, policy, requests, sampling, version):
        generation = {
            **{"do_sample": True, "temperature": sampling.temperature},
            **{"top_k": sampling.top_k, "top_p": sampling.top_p, "max_new_tokens": sampling.max_tokens},
            **{"eos_token_id": self.ends, "pad_token_id": self.ends[0], "disable_compile": True},
        }
        ids, attention = padded([request.prompt_ids for request in requests], "left")
        device = self.accelerator.device
        unwrapped = unwrap_model_for_generation(policy, self.accelerator, generation_kwargs=generation)
        with unwrapped as model, torch.no_grad():
            made = model.generate(
                input_ids=ids.to(device),
                attention_mask=attention.to(device),
                generation_config=GenerationConfig(**generation),
            )
        rows = made[:, ids.shape[1] :].tolist()
        return [engines.completion(row, "length", self.ends, None) for row in rows]


def requests(seed, names, prompts, step, first=0, number=1, attempt=0):
    """Return the engines.Request of a completion to each prompt.

    seed: int; names, prompts: their prompt_ids, and lists of int, each prompt `number` times in a row; first:
    int, the place of the first row among those of all devices; attempt: int, of samplings in the same step.
    Each completion has a seed by its prompt, its number and its step, so that a resumed training samples the
    same.
    """
    return [
        engines.Request(
            prompt,
            seeds.derive(seed, "online completion", name, (first + row) % number, step, attempt),
            f"prompt_id {name}",
            "online.max_completion_length or prompts.max_prompt_length",
        )
        for row, (name, prompt) in enumerate(zip(names, prompts, strict=True))
    ]


def batch(requests, completions):
    """Return (ids [n, p + c], attention [n, p + c], c) of prompts, padded on the left, and completions."""
    prompts, said = [request.prompt_ids for request in requests], [made.ids for made in completions]
    ids, attention = zip(padded(prompts, "left"), padded(said, "right"), strict=True)
    return torch.cat(ids, dim=1), torch.cat(attention, dim=1), ids[1].shape[1]


def padded(rows, side):
    """Return (int64, bool) tensors [n, longest] of lists of ids and of where they are."""
    ids = pad([torch.tensor(row) for row in rows], padding_side=side)
    return ids, pad([torch.ones(len(row), dtype=torch.bool) for row in rows], padding_side=side).bool()
