"""What a policy says in a dialogue, as text: for the evaluations, which read answers and train on none."""

from dataclasses import asdict

from prefline import engines
from prefline.errors import InputError
from prefline.provenance import journal
from prefline.text import chat


def open_journal(root, script, model, settings, sampling):
    """The Journal of the answers that `script` has a policy give.

    root: work/journal; model: the policy's directory; settings: engines.Settings; sampling: engines.Sampling.
    """
    packages = ("jinja2", *engines.packages(settings.engine))
    shaped_by = journal.context(script, model, packages, **asdict(settings), **asdict(sampling))
    return journal.Journal(root, "answers", shaped_by, f"{model} at temperature {sampling.temperature}")


def answer(load_engine, kept, dialogues, seeds, sampling, begun=""):
    """(answer, finish_reason) for each dialogue, all of them decoded together.

    load_engine: gives an engine as engines.start does, called only if an answer is missing in the Journal
    `kept`; dialogues: lists of messages that end with the user's; seeds: one int for each; sampling:
    engines.Sampling; begun: str that every answer begins with, and is given without. Answers have no special
    tokens and no blanks around them. Raises InputError for a dialogue that the engine gives up.
    """
    beginning = (begun,) if begun else ()
    keys = [journal.key(messages, seed, *beginning) for messages, seed in zip(dialogues, seeds, strict=True)]

    def make(missing):
        engine = load_engine()
        names = list(missing)
        requests = [
            engines.Request(
                chat.prompt_ids(engine.tokenizer, messages, begun=begun),
                seed,
                f"the dialogue {messages[-1]['content']!r:.60}",
            )
            for messages, seed in missing.values()
        ]
        for index, done in engine.stream(requests, sampling):
            if done.finish_reason == "error":
                raise InputError(f"{requests[index].name}: the engine gives it up; see the lines above")
            text = engine.tokenizer.decode(done.ids, skip_special_tokens=True).strip()
            yield {names[index]: [text, done.finish_reason]}

    rows = kept.rows(dict(zip(keys, zip(dialogues, seeds, strict=True), strict=True)), make)
    return [tuple(rows[name]) for name in keys]
