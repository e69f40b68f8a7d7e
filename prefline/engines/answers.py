"""Sample a policy's answers in dialogues as text, for evaluations, which never train on them."""

from dataclasses import asdict

from prefline import engines, unicode
from prefline.engines.model_files import ModelFiles
from prefline.errors import InputError
from prefline.provenance import journal
from prefline.text import chat, reasoning

# Most tokens of an answer that is read again, for each that was sampled: of a byte that is no text, the
# replacement character has three.
READ_AGAIN = 3


def open_journal(root, script, model, settings, sampling):
    """Return the Journal of a policy's answers for `script`.

    root: work/journal; model: the policy's directory; settings: engines.Settings; sampling: engines.Sampling.
    """
    packages = ("jinja2", *engines.packages(settings.engine))
    shaped_by = journal.context(script, model, packages, **asdict(settings), **asdict(sampling))
    return journal.Journal(root, "answers", shaped_by, f"{model} at temperature {sampling.temperature}")


def most_tokens(model, dialogues, max_tokens, begun=""):
    """Return the most tokens (int) of a prompt and its answer in dialogues that are still to be answered.

    dialogues: lists of messages that end with the user's; content None is an answer that is not there yet.
    """
    tokenizer, most = chat.load_tokenizer(model), 0
    for messages in dialogues:
        said = _with_short_answers(messages)
        answers = sum(message["content"] is None for message in messages)
        length = len(chat.prompt_ids(tokenizer, said, begun=begun))
        most = max(most, length + (READ_AGAIN * answers + 1) * max_tokens)
    return most


def check(model, dialogues, names, max_tokens, section):
    """Raise InputError, naming them, for dialogues that exceed a model's context whatever was answered.

    model: directory; dialogues: as in `most_tokens`; names: list of str; section: of the config, which has
    max_tokens.
    """
    files = ModelFiles(model)
    requests = [
        engines.Request(
            chat.prompt_ids(files.tokenizer, _with_short_answers(messages)), 0, name, f"{section}.max_tokens"
        )
        for messages, name in zip(dialogues, names, strict=True)
    ]
    files.check(requests, max_tokens)


def _with_short_answers(messages):
    return [message | {"content": message["content"] or "a"} for message in messages]


def answer(load_engine, kept, dialogues, seeds, sampling, section, begun="", names=None):
    """Return (answer, finish_reason) for each dialogue, all of them decoded together.

    load_engine: gives an engine as engines.start does, called only if an answer is missing in the Journal
    `kept`; dialogues: lists of messages that end with the user's; seeds: one int for each; sampling:
    engines.Sampling; section: of the config, which has max_tokens; begun: str that every answer begins with,
    and is given without; names: of the dialogues (list of str) for messages, None for their words. Answers
    have no reasoning, no special tokens and no blanks around them; one that never leaves its reasoning is
    empty, and its finish_reason is "length". An earlier answer that ends its reasoning twice is shown
    without all of it. After one that the chat template refuses, such as an empty one, the answer is empty,
    and its finish_reason "template". Raises InputError for a dialogue that the engine gives up, and for one
    that the template refuses whatever was answered.
    """
    beginning = (begun,) if begun else ()
    keys = [journal.key(messages, seed, *beginning) for messages, seed in zip(dialogues, seeds, strict=True)]
    names = names or [f"the dialogue {messages[-1]['content']!r:.60}" for messages in dialogues]
    named = dict(zip(keys, names, strict=True))

    def make(missing):
        engine = load_engine()
        asked, requests = [], []
        for key, (messages, seed) in missing.items():
            ids = prompt_ids(engine.tokenizer, messages, begun)
            if ids is None:
                print(
                    f"warning: {named[key]} is left unanswered: the template refuses an earlier answer",
                    flush=True,
                )
                yield {key: ["", "template"]}
                continue
            asked.append(key)
            requests.append(engines.Request(ids, seed, named[key], f"{section}.max_tokens"))
        for index, done in engine.stream(requests, sampling):
            if done.finish_reason == "error":
                raise InputError(f"{requests[index].name}: the engine gives it up; see the lines above")
            if begun:
                text = unicode.valid(engine.tokenizer.decode(done.ids, skip_special_tokens=True))
            else:
                text = chat.said(engine.tokenizer, done.ids).answer
            yield {asked[index]: ["", "length"] if text is None else [text.strip(), done.finish_reason]}

    rows = kept.rows(dict(zip(keys, zip(dialogues, seeds, strict=True), strict=True)), make)
    return [tuple(rows[name]) for name in keys]


def prompt_ids(tokenizer, messages, begun=""):
    """Return the ids (list of int) of a dialogue; None if the template refuses what was answered in it."""
    try:
        return chat.prompt_ids(tokenizer, messages, begun=begun)
    except InputError:
        given = _with_answers(messages, lambda _: "a")
        if given == messages:
            raise
        chat.prompt_ids(tokenizer, given)
    markers = reasoning.markers_of(tokenizer)
    try:
        shown = _with_answers(messages, lambda text: reasoning.after_all(text, markers))
        return chat.prompt_ids(tokenizer, shown, begun=begun)
    except InputError:
        return None


def _with_answers(messages, change):
    """Return `messages` with `change(content)` in place of each assistant's content."""
    return [
        one | {"content": change(one["content"])} if one["role"] == "assistant" else one for one in messages
    ]
