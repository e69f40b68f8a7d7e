"""Compute the rewards of completions that a policy samples while it is trained.

The models, functions and judges are those of rewards.smk. The reward is their weighted sum, as in
build_preferences, minus the penalties for length and for completions that are cut off. Rewards that compare a
prompt's completions (a pairwise model, normalize: prompt) use those of the same batch.
"""

import collections
from typing import NamedTuple

import numpy as np

from prefline.config import functions
from prefline.engines import asking
from prefline.engines.pace import Pace
from prefline.errors import InputError
from prefline.rewards import Dialogue, calling, combine, pairwise, scorers, tournament
from prefline.rewards.judge import Judge
from prefline.text import chat


class Sampled(NamedTuple):
    """A completion to reward."""

    prompt: dict  # a row of tables.PROMPTS
    ids: list  # of int, with the end token if it ended with one


class Rewarded(NamedTuple):
    """The rewards of n completions, NaN where there is none."""

    reward: np.ndarray  # float64 [n], which the training maximizes
    parts: dict  # {name: float64 array [n]}, each reward before normalization and weight
    failed: dict  # {name of a function: share of the completions at which it failed}


class Rewards:
    """A function that returns the rewards of completions.

    sections: {name: section}, the config's `rewards`; models: {name: directory} of the models that they
    name; endpoints: {name of a judge: Endpoint}; policy: engines.model_files.ModelFiles of the policy;
    length_penalty: subtracted from the reward for each token; missing_eos_penalty: subtracted if a
    completion is cut off or ends inside its reasoning; batch_tokens: int, most tokens in a model's forward
    pass; judge_batch_size: requests to a judge in flight; journal: folder of the judges' finished verdicts.
    """

    def __init__(
        self,
        sections,
        models,
        endpoints,
        policy,
        length_penalty,
        missing_eos_penalty,
        batch_tokens,
        judge_batch_size,
        journal,
        seed,
    ):
        self.sections, self.ends, self.tokenizer = sections, set(policy.end_tokens), policy.tokenizer
        self.length_penalty, self.missing_eos_penalty = length_penalty, missing_eos_penalty
        self.scorers, self.failures = {}, {}
        for name, section in sections.items():
            kind, model = section["kind"], models.get(section.get("model"))
            if kind == "classifier":
                self.scorers[name] = classifier(model, batch_tokens, section)
            elif kind == "pairwise":
                self.scorers[name] = comparer(model, batch_tokens, section, seed)
            elif kind == "function":
                self.failures[name] = collections.Counter()
                self.scorers[name] = function(section, self.failures[name])
            else:
                self.scorers[name] = judge(section, Pace(judge_batch_size, endpoints[name], journal), seed)

    def __call__(self, samples, where, normalize=True):
        """Return the Rewarded of a list of Sampled; where: str, names them in messages ("step 3", say).

        normalize: whether to normalize as the sections set; rewards normalized by prompt do not measure a
        policy. Raises InputError if no completion has a reward.
        """
        answers = [self.answer(sample.ids) for sample in samples]
        dialogues = [
            Dialogue(
                sample.prompt["messages"],
                answer or "",
                f"{where}, prompt_id {sample.prompt['prompt_id']}",
                sample.prompt["reference"],
            )
            for sample, answer in zip(samples, answers, strict=True)
        ]
        names = [sample.prompt["prompt_id"] for sample in samples]
        for counted in self.failures.values():
            counted.clear()
        parts = {
            name: np.array(score(dialogues, names), dtype=np.float64) for name, score in self.scorers.items()
        }
        _, prompts = np.unique(names, return_inverse=True)
        sections = {
            name: section if normalize else {**section, "normalize": "none"}
            for name, section in self.sections.items()
        }
        scales = {name: combine.scale(values) for name, values in parts.items()}
        reward = combine.combined(parts, sections, prompts, scales)
        if np.isnan(reward).all():
            reasons = ", ".join(
                f"{name}: {count} {reason}"
                for name, counted in self.failures.items()
                for reason, count in counted.items()
            )
            raise InputError(
                f"{where}: none of {len(samples)} completions has a reward; {reasons or 'see the log above'}"
            )
        reward -= self.length_penalty * np.array([len(sample.ids) for sample in samples])
        cut = [
            answer is None or sample.ids[-1] not in self.ends
            for sample, answer in zip(samples, answers, strict=True)
        ]
        reward -= self.missing_eos_penalty * np.array(cut)
        failed = {name: counted.total() / len(samples) for name, counted in self.failures.items()}
        return Rewarded(reward, parts, failed)

    def answer(self, ids):
        """Return the answer in a completion (str), without reasoning; None if the reasoning does not end."""
        return chat.said(self.tokenizer, ids[:-1] if ids[-1] in self.ends else ids).answer


# Each kind of reward as a function (dialogues, their prompt_ids) -> [float, or None or NaN without a reward].


def classifier(model, batch_tokens, section):
    """Return the reward function of a model that scores one answer at a time."""
    scorer = scorers.load(model, batch_tokens, section["dtype"], section["head_weights"])
    return lambda dialogues, _: scorers.score(scorer, dialogues)


def comparer(model, batch_tokens, section, seed):
    """Return the reward function of a pairwise model: the probability of beating the other completions."""
    loaded = pairwise.load(model, batch_tokens, section["dtype"])

    def compare(comparisons):
        made = [None] * len(comparisons)
        for numbers, probabilities in loaded.batches(comparisons) if comparisons else ():
            for number, value in zip(numbers, probabilities, strict=True):
                made[number] = value
        return made

    def score(dialogues, names):
        scored = tournament.rewards(
            dialogues, names, range(len(dialogues)), section["opponents"], seed, compare
        )
        return [reward for reward, _ in scored]

    return score


def function(section, failures):
    """Return the reward function of a Python function; failures: collections.Counter, see calling."""
    called = functions.load(section["function"])
    return lambda dialogues, _: [
        calling.reward(called, section["arguments"], dialogue, failures) for dialogue in dialogues
    ]


def judge(section, pace, seed):
    """Return the reward function of a judge that follows a rubric; the journal caches its verdicts."""
    settings = asking.Settings("", section["max_tokens"], seed)
    asked = Judge(section["rubric"], section["lowest"], section["highest"], settings, pace)
    return lambda dialogues, _: asked.rate(dialogues).rewards
