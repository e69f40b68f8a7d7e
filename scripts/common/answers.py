"""What a policy says in a dialogue, as text: for the evaluations, which read answers and train on none."""

from dataclasses import asdict

from scripts.common import chat, engines, journal


def open_journal(root, script, model, engine, dtype, sampling):
    """The Journal of the answers that `script` has the policy in the directory `model` give.

    root: work/journal; engine, dtype: see engines.load; sampling: engines.Sampling.
    """
    packages = ("jinja2", *engines.packages(engine))
    shaped_by = journal.context(script, model, packages, engine=engine, dtype=dtype, **asdict(sampling))
    return journal.Journal(root, "answers", shaped_by, f"{model} at temperature {sampling.temperature}")


def answer(load_engine, kept, dialogues, seeds, sampling):
    """(answer, finish_reason) for each dialogue, all of them decoded together.

    load_engine: gives an engine as engines.load does, called only if an answer is missing in the Journal
    `kept`; dialogues: lists of messages that end with the user's; seeds: one int for each; sampling:
    engines.Sampling. Answers have no special tokens and no blanks around them.
    """
    keys = [journal.key(messages, seed) for messages, seed in zip(dialogues, seeds, strict=True)]

    def make(missing):
        engine = load_engine()
        names = list(missing)
        requests = [
            engines.Request(chat.prompt_ids(engine.tokenizer, messages), seed)
            for messages, seed in missing.values()
        ]
        for start, completions in engines.generate(engine, requests, sampling):
            texts = [engine.tokenizer.decode(done.ids, skip_special_tokens=True) for done in completions]
            yield {
                name: [text.strip(), done.finish_reason]
                for name, text, done in zip(names[start:], texts, completions, strict=False)
            }

    rows = kept.rows(dict(zip(keys, zip(dialogues, seeds, strict=True), strict=True)), make)
    return [tuple(rows[name]) for name in keys]
