"""Rewards by a language model that rates answers by a rubric (LLM as a judge).

An answer without a rating on every try gives no reward, never an invented number. Every answer of the judge
is a row of the journal, as text, from which the number is read again.
"""

from typing import NamedTuple

from prefline.engines import asking
from prefline.provenance import journal
from prefline.rewards import rubric
from prefline.text import verdicts


class Rated(NamedTuple):
    """A judge's ratings of dialogues."""

    rewards: list  # of float, None where there is none
    asked: int  # how many different questions they were
    missing: list  # of str: which of these have no rating, and why


class Judge:
    """Rates dialogues; close it at the end.

    path: the rubric's file; lowest, highest: the numbers (float) that count; settings: asking.Settings of the
    judge; pace: engines.pace.Pace, with its endpoint.
    """

    def __init__(self, path, lowest, highest, settings, pace):
        self.paragraphs = rubric.load(path)
        self.lowest, self.highest, self.settings = lowest, highest, settings
        self.pace, self.asked = pace, None
        context = asking.context(settings, pace.endpoint)
        self.kept = journal.Journal(pace.journal, "ratings", context, settings.model or pace.endpoint.model)

    def rate(self, dialogues):
        """Return the Rated of a list of `Dialogue`; None has no rating; equal questions are asked once.

        The first call's dialogues are what a server of the job's own is made for. Raises InputError where the
        endpoint's budget is used up.
        """
        texts = [dialogue and rubric.fill(self.paragraphs, dialogue) for dialogue in dialogues]
        questions = {
            text: asking.Question([{"role": "user", "content": text}], dialogue.where)
            for text, dialogue in zip(texts, dialogues, strict=True)
            if dialogue
        }
        if self.asked is None:
            self.asked = asking.Asked(self.settings, self.pace, list(questions))
        scores, reasons, _ = self.asked.until_read(questions, self._read, self.kept)
        missing = [f"{questions[text].name}: {reason}" for text, reason in reasons.items()]
        return Rated([scores.get(text) for text in texts], len(questions), missing)

    def close(self):
        """End the connections, and the server if it is the job's own."""
        if self.asked is not None:
            self.asked.close()

    def _read(self, answer):
        complete = answer.finish_reason == "stop"
        return verdicts.rating(answer.text, complete, self.lowest, self.highest)
