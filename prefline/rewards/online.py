"""The reward that ranks, of completions that a policy samples while it is trained.

The same models, functions and judges score as in the rules of rewards.smk, and their weighted sum counts as
in build_preferences, less the penalties for length and for completions that are cut off. What needs the
other completions to the prompt (a pairwise model, normalize: prompt) takes those that are scored with it.
"""

from typing import NamedTuple

import numpy as np

from prefline.config import functions
from prefline.engines import asking
from prefline.engines.pace import Pace
from prefline.errors import InputError
from prefline.rewards import Dialogue, calling, combine, pairwise, scorers, tournament
from prefline.rewards.judge import Judge


class Sampled(NamedTuple):
    """A completion to reward."""

    prompt: dict  # a row of tables.PROMPTS
    ids: list  # of int, with the end token if it stopped by itself


class Rewarded(NamedTuple):
    """The rewards of n completions, NaN where there is none."""

    reward: np.ndarray  # float64 [n], what a training maximizes
    parts: dict  # {name: float64 array [n]}, each reward before it is normalized and weighted


class Rewards:
    """Calls give the rewards of completions.

    sections: {name: section}, the config's `rewards`; models: {name: directory} of those that they name;
    endpoints: {name of a judge: Endpoint}; policy: engines.model_files.ModelFiles of the policy;
    length_penalty: reward taken off per token; missing_eos_penalty: taken off what is cut off; batch_tokens:
    int, most tokens at once in a model's forward pass; judge_batch_size: requests to a judge in flight;
    journal: folder of the judges' finished verdicts.
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
        self.scorers = {}
        for name, section in sections.items():
            kind, model = section["kind"], models.get(section.get("model"))
            if kind == "classifier":
                self.scorers[name] = classifier(model, batch_tokens, section)
            elif kind == "pairwise":
                self.scorers[name] = comparer(model, batch_tokens, section, seed)
            elif kind == "function":
                self.scorers[name] = function(section)
            else:
                self.scorers[name] = judge(section, Pace(judge_batch_size, endpoints[name], journal), seed)

    def __call__(self, samples, where, normalize=True):
        """The Rewarded of a list of Sampled; where: str, names them in messages ("step 3", say).

        normalize: whether as the sections say; what is normalized by prompt says nothing about a policy.
        Raises InputError if none of them has a reward.
        """
        dialogues = [
            Dialogue(
                sample.prompt["messages"],
                self.text(sample.ids),
                f"{where}, prompt_id {sample.prompt['prompt_id']}",
                sample.prompt["reference"],
            )
            for sample in samples
        ]
        names = [sample.prompt["prompt_id"] for sample in samples]
        parts = {
            name: np.array(score(dialogues, names), dtype=np.float64) for name, score in self.scorers.items()
        }
        _, prompts = np.unique(names, return_inverse=True)
        sections = {
            name: section if normalize else {**section, "normalize": "none"}
            for name, section in self.sections.items()
        }
        reward = combine.combined(parts, sections, prompts, np.ones(len(samples), dtype=bool))
        if np.isnan(reward).all():
            raise InputError(f"{where}: none of {len(samples)} completions has a reward; see the judge's log")
        reward -= self.length_penalty * np.array([len(sample.ids) for sample in samples])
        reward -= self.missing_eos_penalty * np.array([sample.ids[-1] not in self.ends for sample in samples])
        return Rewarded(reward, parts)

    def text(self, ids):
        """What a completion says (str), without the token that ended it."""
        spoken = ids[:-1] if ids[-1] in self.ends else ids
        return self.tokenizer.decode(spoken, skip_special_tokens=True)


# Each kind of reward as a function (dialogues, their prompt_ids) -> [float, None or NaN where there is none].


def classifier(model, batch_tokens, section):
    """Of a model that reads one answer at a time."""
    scorer = scorers.load(model, batch_tokens, section["dtype"], section["head_weights"])
    return lambda dialogues, _: scorers.score(scorer, dialogues)


def comparer(model, batch_tokens, section, seed):
    """The probability of beating another of the prompt's completions, by a tournament among them."""
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


def function(section):
    """Of a Python function."""
    called = functions.load(section["function"])
    return lambda dialogues, _: [
        calling.reward(called, section["arguments"], dialogue) for dialogue in dialogues
    ]


def judge(section, pace, seed):
    """Of a language model that follows a rubric, on servers; the journal keeps its verdicts."""
    settings = asking.Settings("", section["max_tokens"], seed)
    asked = Judge(section["rubric"], section["lowest"], section["highest"], settings, pace)
    return lambda dialogues, _: asked.rate(dialogues).rewards
