"""Rewards by a language model that rates answers by a rubric (LLM as a judge).

What is no rating on any try is no reward: never a number that nobody gave. Every answer of the judge is a row
of the journal, as text, from which the number is read anew.
"""

from typing import NamedTuple

from prefline import engines
from prefline.engines import asking
from prefline.provenance import journal
from prefline.rewards import rubric


class Rated(NamedTuple):
    """What a judge says of dialogues."""

    rewards: list  # of float, None where there is none
    asked: int  # how many different questions they were
    missing: list  # of str: which of these have no rating, and why


class Judge:
    """Rates dialogues; close it at the end.

    path: the rubric's file; lowest, highest: the numbers (float) that count; settings: asking.Settings of the
    judge; pace: engines.pace.Pace; root: work/journal; section: of the config, for messages.
    """

    def __init__(self, path, lowest, highest, settings, pace, root, section):
        self.paragraphs = rubric.load(path)
        self.lowest, self.highest, self.settings = lowest, highest, settings
        self.pace, self.section, self.servers = pace, section, None
        about = settings.model or settings.name
        self.kept = journal.Journal(root, "ratings", context(settings, pace.servers), about)

    def rate(self, dialogues):
        """The Rated of a list of `Dialogue`, in which None has no rating; equal questions are asked once.

        The first call's dialogues are what a server of the job's own is made for.
        """
        texts = [dialogue and rubric.fill(self.paragraphs, dialogue) for dialogue in dialogues]
        asked = {
            text: asking.Question([{"role": "user", "content": text}], dialogue.where)
            for text, dialogue in zip(texts, dialogues, strict=True)
            if dialogue
        }
        if self.servers is None:
            self.servers = asking.Servers(self.settings, self.pace, list(asked), self.section)
        scores, reasons, _ = asking.until_read(
            asked, self._read, lambda wanted: self.kept.rows(wanted, self.servers.answers), self.settings.seed
        )
        missing = [f"{asked[text].name}: {reason}" for text, reason in reasons.items()]
        return Rated([scores.get(text) for text in texts], len(asked), missing)

    def close(self):
        """End the connections, and the server if it is the job's own."""
        if self.servers is not None:
            self.servers.close()

    def _read(self, answer):
        complete = answer.finish_reason == "stop"
        return rubric.score(answer.text, self.lowest, self.highest) if complete else None


def context(settings, servers):
    """What shapes all verdicts alike, for the journal; the request's text and seed name the row.

    Verdicts from servers elsewhere may cost money: of the code, only what makes the requests counts for them.
    """
    shared = {"name": settings.name, "max_tokens": settings.max_tokens}
    model = settings.model or None
    if servers:
        return journal.context("prefline/servers/conversation.py", model, (), **shared)
    packages = engines.packages("server")
    return journal.context("prefline/rewards/judge.py", model, packages, dtype=settings.dtype, **shared)
