"""Render chat templates to token ids: the prompt's ids, the answer's tokens and the end of turn.

All later steps use the ids made here. Published pipelines get a second BOS by rendering to text and
tokenizing again, so no other module renders a template. Every list of ids has these properties, or there is
an InputError:

    BOS comes once and first, or never if the model has none
    every word of every message is present, except reasoning of earlier turns, which templates drop
    texts of special tokens in messages are ordinary text
    no token spans the prompt and the answer
"""

import contextlib
import functools
from pathlib import Path
from typing import NamedTuple

from prefline import unicode
from prefline.errors import InputError
from prefline.text import reasoning, structure, tokenizer_class, tools, turns, words
from prefline.text.encoding import Encoder, any_of, show
from prefline.text.rendering import SCHEMAS, render

ROLES = ("system", "user", "assistant")

# A text that every tokenizer must decode unchanged. A tokenizer of a wrong class drops blanks or unknown
# text.
SAMPLE = "two words and 2 numbers"


def load_tokenizer(path):
    """Load the tokenizer of the directory `path`; raise InputError if it has no template or loses text."""
    try:
        tokenizer = tokenizer_class.of(path).from_pretrained(path, trust_remote_code=False)
    except Exception as error:  # the libraries refuse files in many ways
        said = " ".join(str(error).split()) or type(error).__name__
        raise InputError(
            f"{path}: its tokenizer cannot be loaded ({said:.200}); fetch the model again, or correct its "
            "tokenizer.json and tokenizer_config.json"
        ) from error
    if not tokenizer.chat_template:
        if Path(path, "chat_template.jinja").is_file():
            name = type(tokenizer).__name__
            raise InputError(
                f"{path}: {name} reads no chat template; add a tokenizer.json of the same tokens"
            )
        raise InputError(
            f"{path}: the tokenizer has no chat template; add a chat_template.jinja to the model"
        )
    if not isinstance(tokenizer.chat_template, str | dict):
        raise InputError(f"{path}: its chat template is not a text; correct its tokenizer_config.json")
    ids = tokenizer(SAMPLE, add_special_tokens=False)["input_ids"]
    if (said := tokenizer.decode(ids).strip()).lower() != SAMPLE:
        raise InputError(
            f"{path}: the tokenizer loses text ({SAMPLE!r} comes back as {said!r:.60}): tokenizer_class in "
            "its tokenizer_config.json does not fit its tokenizer.json; set it to PreTrainedTokenizerFast"
        )
    return tokenizer


def special_tokens(tokenizer):
    """Return {id: text} of the tokens whose text in any message would otherwise become structure.

    They are the special tokens, and the added ones that the chat template writes around turns.
    """
    return structure.special(tokenizer) | structure.around_turns(tokenizer)


def special_tokens_in(tokenizer, value):
    """Return the texts of special tokens in `value`, sorted; [] for most values.

    value: str, or messages (list of {"role", "content"}). Text that the tokenizer's normalization turns into
    a special token counts, too. All ids made here read such texts as ordinary text. The caller that reads
    data decides whether to drop the row.
    """
    texts = [value] if isinstance(value, str) else [message["content"] for message in value]
    return _chat(tokenizer).encoder.special_in(texts)


def as_messages(value, where, system=None):
    """Return a prompt as the list of its messages: a string is one user turn.

    value: str, or a list of {"role", "content"} with roles of ROLES. system: str or None, put first if the
    prompt has no system message. Other keys of a message are dropped. Raises InputError that names `where`
    for other values and for blank contents.
    """
    if isinstance(value, str):
        value = [{"role": "user", "content": value}]
    if not isinstance(value, list) or not value:
        raise InputError(f"{where}: a prompt is a string or a list of messages, not {value!r:.60}")
    messages = []
    for message in value:
        if not isinstance(message, dict) or message.get("role") not in ROLES:
            raise InputError(
                f"{where}: a message has a `role` among {ROLES} and a `content`, not {message!r:.60}"
            )
        if not isinstance(message.get("content"), str) or not message["content"].strip():
            raise InputError(f"{where}: the {message['role']} message has no text")
        messages.append({"role": message["role"], "content": message["content"]})
    if system is not None and messages[0]["role"] != "system":
        messages.insert(0, {"role": "system", "content": system})
    return messages


def prompt_ids(tokenizer, messages, begun=""):
    """Return the ids (list of int) of `messages` up to the beginning of the assistant's answer.

    begun: str, the beginning of the answer, for a policy to complete.
    """
    chat = _chat(tokenizer)
    ids = chat.rendered([messages], True, _no_place)[0]
    if begun:
        ids += chat.encoder.encode([chat.turn.opener + begun], chat.turn.follows)[0]
    return ids


def dialogue_ids(tokenizer, messages):
    """Return the ids (list of int) of the whole rendered dialogue, as a reward model reads it.

    Answers are part of `messages`. Text that the template writes after the last end token is included,
    since reward models score the very last token. A template that begins every turn with a BOS (Llama 2)
    keeps them all.
    """
    return _chat(tokenizer).rendered([messages], False, _no_place, whole=True)[0]


def document_ids(tokenizer, texts):
    """Return the ids (list of list of int) of plain texts: BOS if dialogues have it, text, EOS."""
    if tokenizer.eos_token_id is None:
        raise InputError(f"{tokenizer.name_or_path}: the tokenizer has no eos_token to end documents with")
    begin = [tokenizer.bos_token_id] if _chat(tokenizer).begins_with_bos else []
    encoded = _chat(tokenizer).encoder.encode(texts, as_text=True)
    return [[*begin, *ids, tokenizer.eos_token_id] for ids in encoded]


def prompt_and_completion_ids(tokenizer, messages, completion):
    """Return (prompt_ids, completion_ids) of an answer; see prompts_and_completions."""
    ((prompt, (ids,)),) = prompts_and_completions(tokenizer, [(messages, [completion])])
    return prompt, ids


def prompts_and_completions(tokenizer, dialogues, place=None):
    """Return [(prompt_ids, [completion_ids of each answer]), …] of `dialogues`: (messages, [answer, …]) each.

    Tokenizes all of them at once, and each prompt once for all its answers. A completion has the ids that a
    policy would sample: the template's text before the answer, the answer, and the end of turn. The end of
    turn is the first special token that the template writes after the answer; it need not be the
    tokenizer's eos_token (base models end documents with another). An InputError begins with place(number
    of the dialogue), if given.
    """
    chat = _chat(tokenizer)
    prompts = chat.rendered(
        [messages for messages, _ in dialogues], True, lambda number: _in_place(place, number)
    )
    completions = iter(chat.completions([answer for _, answers in dialogues for answer in answers]))
    return [
        (prompt, [next(completions) for _ in answers])
        for prompt, (_, answers) in zip(prompts, dialogues, strict=True)
    ]


def end_of_turn(tokenizer):
    """Return the id (int) of the token that ends an answer by the chat template; None without one."""
    try:
        return _chat(tokenizer).closer[-1]
    except InputError:
        return None


class Said(NamedTuple):
    """A policy's completion: text with reasoning, and the answer, None if the reasoning never ends."""

    text: str
    answer: str | None


def said(tokenizer, ids):
    """Return the Said of a completion's ids (list of int) without its end token."""
    return _chat(tokenizer).said(ids)


def calls_as_text(tokenizer, message):
    """Return the content (str) of an assistant's message with its calls of tools; see the module tools."""
    chat = _chat(tokenizer)
    return tools.calls_as_text(tokenizer, message, chat.special, chat.markers, chat.parts)


def check_second_turn(tokenizer):
    """Raise InputError if the chat template cannot render a second question, which MT-Bench has.

    The check comes early, because MT-Bench comes only after training.
    """
    asked = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}] * 2
    try:
        prompt_ids(tokenizer, asked[:3])
    except InputError as error:
        raise InputError(
            f"a second question, as MT-Bench asks, cannot be rendered: {error}; correct the chat template "
            "and name it as models.NAME.chat_template"
        ) from None


class _Chat:
    """A tokenizer with the properties of its chat template, computed when they are first needed."""

    def __init__(self, tokenizer):
        self.tokenizer = tokenizer
        special = special_tokens(tokenizer)
        self.encoder = Encoder(tokenizer, special, structure.in_template(tokenizer))
        self.special = any_of(tuple(structure.special(tokenizer).values()))
        self.markers = reasoning.markers_of(tokenizer)
        self.lost = {}

    @functools.cached_property
    def parts(self):
        """Tell whether the template takes contents as lists of parts only."""
        return turns.takes_parts(self.tokenizer)

    @functools.cached_property
    def turn(self):
        with _in_place(lambda name: name, self.tokenizer.name_or_path or "the tokenizer"):
            return turns.turn_of(self.tokenizer, self.encoder, self.special, self.markers, self.parts)

    @functools.cached_property
    def closer(self):
        """Return the ids that end an answer."""
        return self.encoder.encode([self.turn.closer], "text")[0]

    @functools.cached_property
    def adds_bos(self):
        """Tell whether the tokenizer puts a BOS before a text."""
        return self.tokenizer("a")["input_ids"][:1] == [self.tokenizer.bos_token_id]

    @functools.cached_property
    def begins_with_bos(self):
        """Tell whether dialogues begin with a BOS, by the template or by the tokenizer."""
        bos = self.tokenizer.bos_token
        return bos is not None and (self.adds_bos or structure.rendered(self.tokenizer).startswith(bos))

    def rendered(self, dialogues, add_generation_prompt, place, whole=False):
        """Return the ids of `dialogues` (lists of messages) by the template.

        place: function of a dialogue's number that returns a context manager for its errors. whole: whether
        BOS tokens may be anywhere, where the template writes them.
        """
        found, plain = [None] * len(dialogues), {}
        for number, messages in enumerate(dialogues):
            with place(number):
                contents, shown = self.encoder.hide(
                    [message["content"] for message in messages],
                    [message["role"] == "assistant" for message in messages],
                )
                hidden = [
                    {**message, "content": content}
                    for message, content in zip(messages, contents, strict=True)
                ]
                text = render(self.tokenizer, hidden, add_generation_prompt, self.parts)
                words.check(text, hidden, shown, self.markers)
                self._check_messages(hidden, shown, add_generation_prompt)
            if self.encoder.has_hidden(text, contents, shown):
                found[number] = self.encoder.encode_hidden(text, shown)
            else:
                plain[number] = text
        for number, ids in zip(plain, self.encoder.encode(list(plain.values())), strict=True):
            found[number] = ids
        for number, ids in enumerate(found):
            with place(number):
                self._set_bos(ids, whole)
        return found

    def completions(self, answers):
        """Return the ids of `answers` (list of str), with the template's text around each."""
        begun, whole, texts = self.turn, [], [None] * len(answers)
        for number, answer in enumerate(answers):
            (answer,), shown = self.encoder.hide([answer], [True])
            text = begun.before(begun.stripped(answer), self.markers)
            if self.encoder.has_hidden(text, [answer], shown):
                texts[number] = self.encoder.encode_hidden(text, shown, begun.follows)
            else:
                whole.append(text)
        encoded = iter(self.encoder.encode(whole, begun.follows))
        return [(next(encoded) if ids is None else ids) + self.closer for ids in texts]

    @functools.cached_property
    def opened(self):
        """Return the Markers of the reasoning that a prompt leaves open, or None."""
        asked = [{"role": "user", "content": turns.QUESTION}]
        return reasoning.opened_by(render(self.tokenizer, asked, True, self.parts), self.markers)

    @functools.cached_property
    def opener(self):
        """Return the template's text before an answer; "" if that is not clear."""
        try:
            return self.turn.opener
        except InputError:
            return ""

    @functools.cached_property
    def may_think(self):
        """Tell whether completions may have structure, by the template or by special tokens."""
        special = (self.special.search(markers.opening) for markers in self.markers)
        return bool(self.opened or self.opener or any(special))

    def said(self, ids):
        text = unicode.valid(self.tokenizer.decode(ids, skip_special_tokens=True))
        if not self.may_think and reasoning.opening_of(text, self.markers) is None:
            return Said(text, text)
        # Markers may be special tokens, so decode these too.
        whole = unicode.valid(self.tokenizer.decode(ids, skip_special_tokens=False))
        channels = reasoning.CHANNEL.match(whole.lstrip())
        if self.opener and self.opened is None and not channels and whole.startswith(self.opener):
            return Said(whole, self._plain(whole[len(self.opener) :]))
        thought, answer = reasoning.split(whole, self.markers, self.opened)
        if not thought:
            return Said(text, text)
        return Said(whole, answer and self._plain(answer))

    def _plain(self, text):
        """Return `text` without special tokens."""
        return self.special.sub("", text)

    def _check_messages(self, messages, shown, add_generation_prompt):
        """Raise InputError if the template drops a message of these roles, whose words are elsewhere, too."""
        messages = [message for message in messages if message["role"] != SCHEMAS]
        shape = (add_generation_prompt, *(message["role"] for message in messages))
        if shape not in self.lost:
            self.lost[shape] = turns.dropped(self.tokenizer, shape[1:], add_generation_prompt, self.parts)
        if (number := self.lost[shape]) is not None:
            content = messages[number]["content"].split()
            raise words.dropped(number, messages[number], show(content[0] if content else "", shown))

    def _set_bos(self, ids, whole):
        """Put the tokenizer's BOS before `ids` if it adds one; raise InputError for others, unless whole.

        A BOS that is the EOS, as in OPT, may come again behind answers.
        """
        bos = self.tokenizer.bos_token_id
        if bos is None:
            return
        if bos == self.tokenizer.eos_token_id:
            if self.adds_bos and ids[:1] != [bos]:
                ids.insert(0, bos)
            return
        count = ids.count(bos)
        if count == 0 and self.adds_bos:
            ids.insert(0, bos)
        elif whole:
            return
        elif count > 1:
            raise InputError(
                f"the chat template writes the BOS token {self.tokenizer.bos_token!r} more than once: a "
                "dialogue has exactly one, at its beginning"
            )
        elif count == 1 and ids[0] != bos:
            raise InputError(
                f"the chat template writes the BOS token {self.tokenizer.bos_token!r} after other text: a "
                "dialogue has it at its beginning"
            )


def _chat(tokenizer):
    return _chat_of(tokenizer, str(tokenizer.chat_template))


@functools.lru_cache(maxsize=8)
def _chat_of(tokenizer, _template):
    return _Chat(tokenizer)


@contextlib.contextmanager
def _in_place(place, number):
    """Begin an InputError within with place(number), if there is a place."""
    try:
        yield
    except InputError as error:
        if place is None:
            raise
        raise InputError(f"{place(number)}: {error}") from None


def _no_place(_):
    return contextlib.nullcontext()
