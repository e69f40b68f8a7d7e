"""The reward that ranks, of completions that a policy samples while it is trained.

The same models, functions and judges score as in the rules of rewards.smk, and their weighted sum counts as
in build_preferences, less the penalties for length and for completions that are cut off. What needs the
other completions to the prompt (a pairwise model, normalize: prompt) takes those that are scored with it.
"""

import argparse
from pathlib import Path
from typing import NamedTuple

import numpy as np

from prefline.config import functions
from prefline.engines import asking
from prefline.errors import InputError
from prefline.provenance.journal import Journal
from prefline.rewards import Dialogue, combine, rubric, scorers, tournament
from scripts.rewards import check_completions, compare_completions, rate_completions


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
    servers: {name of a judge: its servers}; policy: engines.model_files.ModelFiles of the policy;
    length_penalty: reward taken off per token; missing_eos_penalty: taken off what is cut off; batch_tokens:
    int, most tokens at once in a model's forward pass; journal: folder of the judges' finished verdicts.
    """

    def __init__(
        self,
        sections,
        models,
        servers,
        policy,
        length_penalty,
        missing_eos_penalty,
        batch_tokens,
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
                self.scorers[name] = pairwise(model, batch_tokens, section, seed)
            elif kind == "function":
                self.scorers[name] = function(section)
            else:
                self.scorers[name] = judge(name, section, servers[name], model, journal, seed)

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


def pairwise(model, batch_tokens, section, seed):
    """The probability of beating another of the prompt's completions, by a tournament among them."""
    comparer = compare_completions.load(model, batch_tokens, section["dtype"])

    def score(dialogues, names):
        scores, groups, wanted = [None] * len(dialogues), {}, {}
        for row, name in enumerate(names):
            groups.setdefault(name, []).append(row)
        for name, rows in groups.items():
            held = compare_completions.comparisons_of(
                [dialogues[row] for row in rows], rows, section["opponents"], seed, name
            )
            wanted |= {(name, *pair): comparison for pair, comparison in held.items()}
        chances, keys = {}, list(wanted)
        if wanted:
            for numbers, probabilities in comparer.batches(list(wanted.values())):
                chances |= {keys[row]: value for row, value in zip(numbers, probabilities, strict=True)}
        for name, rows in groups.items():
            met = {pair[1:]: value for pair, value in chances.items() if pair[0] == name}
            scored = tournament.score([dialogues[row].completion for row in rows], met)
            for row, (reward, _) in zip(rows, scored, strict=True):
                scores[row] = reward
        return scores

    return score


def function(section):
    """Of a Python function."""
    called = functions.load(section["function"])
    return lambda dialogues, _: [
        check_completions.reward(called, section["arguments"], dialogue) for dialogue in dialogues
    ]


def judge(name, section, servers, model, journal, seed):
    """Of a language model that follows a rubric, on servers; the journal keeps its verdicts."""
    paragraphs = rubric.load(section["rubric"])
    asked = argparse.Namespace(
        **section | {"model": model or "", "servers": servers},
        seed=seed,
        batch_size=64,
        server_timeout=600,
        out=Path(name, "online"),
    )
    served = asking.Servers(asked, [], f"rewards.{name}")
    context = rate_completions.context(asked)

    def read(answer):
        complete = answer.finish_reason == "stop"
        return rubric.score(answer.text, asked.lowest, asked.highest) if complete else None

    def score(dialogues, _):
        kept = Journal(journal, "ratings", context, asked.model or asking.name_of(asked))
        texts = [rubric.fill(paragraphs, dialogue) for dialogue in dialogues]
        questions = {
            text: asking.Question([{"role": "user", "content": text}], dialogue.where)
            for text, dialogue in zip(texts, dialogues, strict=True)
        }
        scores, _, _ = asking.until_read(
            questions, read, lambda wanted: kept.rows(wanted, served.answers), seed
        )
        return [scores.get(text) for text in texts]

    return score
