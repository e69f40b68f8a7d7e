"""Chat templates in token ids: exactly one BOS, and a prompt that is a prefix of its dialogue.

Everything downstream works on the ids made here. Rendering to text and tokenizing again is how published
pipelines come by a second BOS, so nothing else in the project renders a template.
"""

import contextlib
from pathlib import Path

from prefline import files
from prefline.errors import InputError

ROLES = ("system", "user", "assistant")
# Two names of the class that has nothing but what tokenizer.json says.
PLAIN_CLASSES = ("PreTrainedTokenizerFast", "TokenizersBackend")


def load_tokenizer(path):
    """The tokenizer of the model directory `path`; InputError if it has no chat template."""
    tokenizer = _tokenizer_class(path).from_pretrained(path, trust_remote_code=False)
    if not tokenizer.chat_template:
        raise InputError(
            f"{path}: the tokenizer has no chat template; add a chat_template.jinja to the model"
        )
    return tokenizer


def _tokenizer_class(path):
    """What loads the tokenizer of `path`: AutoTokenizer, or at once the class that it would come to.

    AutoTokenizer imports torch and all that models are made of, which takes longer than most of what is done
    with tokens alone. A Llama whose config names no class of its own needs none of it.
    """
    configs = [Path(path, name) for name in ("config.json", "tokenizer_config.json")]
    if all(config.is_file() for config in configs):
        model, tokenizer = map(files.read_json, configs)
        named = tokenizer.get("tokenizer_class")
        if model.get("model_type") == "llama" and named in PLAIN_CLASSES and "auto_map" not in tokenizer:
            from transformers import PreTrainedTokenizerFast

            return PreTrainedTokenizerFast
    from transformers import AutoTokenizer

    return AutoTokenizer


def special_tokens(tokenizer):
    """{id: text} of the tokens that are structure: in a message, their text would become structure, too."""
    named = zip(tokenizer.all_special_ids, tokenizer.all_special_tokens, strict=True)
    added = tokenizer.added_tokens_decoder.items()
    return dict(named) | {token_id: token.content for token_id, token in added if token.special}


def as_messages(value, where, system=None):
    """A prompt as the list of its messages: a string is one user turn.

    value: str, or a list of {"role", "content"} with roles of ROLES. system: str or None, put first where
    the prompt has no system message. Other keys of a message are dropped. Raises InputError, naming
    `where`, for anything else and for blank contents.
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


def prompt_ids(tokenizer, messages, add_generation_prompt=True, begun=""):
    """Ids (list of int) of `messages` up to where the assistant's answer begins, with exactly one BOS.

    add_generation_prompt: whether they hold the beginning of the assistant's turn; begun: str, how the answer
    begins, for a policy to go on from.
    """
    return _encode(tokenizer, [_render(tokenizer, messages, add_generation_prompt) + begun], _no_place)[0]


def document_ids(tokenizer, texts):
    """Ids (list of list of int) of plain texts, without the chat template: BOS if there is one, text, EOS."""
    if tokenizer.eos_token_id is None:
        raise InputError(f"{tokenizer.name_or_path}: the tokenizer has no eos_token to end documents with")
    begin = [] if tokenizer.bos_token_id is None else [tokenizer.bos_token_id]
    encoded = tokenizer(texts, add_special_tokens=False, return_attention_mask=False, verbose=False)
    return [[*begin, *ids, tokenizer.eos_token_id] for ids in encoded["input_ids"]]


def prompt_and_completion_ids(tokenizer, messages, completion):
    """(prompt_ids, completion_ids) of an answer; see prompts_and_completions."""
    ((prompt, (ids,)),) = prompts_and_completions(tokenizer, [(messages, [completion])])
    return prompt, ids


def prompts_and_completions(tokenizer, dialogues, place=None):
    """[(prompt_ids, [completion_ids of each answer]), …] of `dialogues`: (messages, [answer, …]) each.

    All of them are tokenized at once, each prompt once for all of its answers. A completion ends with the
    end-of-turn token: the special token which the template writes after the answer; it need not be the
    tokenizer's eos_token (base models end documents with another). What a template writes after it (a line
    feed, often) is nobody's to learn: a policy stops at the token. Raises InputError if the prompt's ids are
    not a prefix of the dialogue's; it begins with place(number of the dialogue), where that is given.
    """
    texts, owners = [], []
    for number, (messages, answers) in enumerate(dialogues):
        turns = [messages] + [[*messages, {"role": "assistant", "content": answer}] for answer in answers]
        with _in_place(place, number):
            texts += [_render(tokenizer, turn, turn is messages) for turn in turns]
        owners += [number] * len(turns)
    encoded = iter(_encode(tokenizer, texts, lambda text: _in_place(place, owners[text])))
    find_end = _EndOfTurn(tokenizer)
    found = []
    for number, (_, answers) in enumerate(dialogues):
        prompt = next(encoded)
        with _in_place(place, number):
            found.append((prompt, [find_end.completion(prompt, next(encoded)) for _ in answers]))
    return found


class _EndOfTurn:
    """Cuts completions out of dialogues; what the tokenizer says of its tokens is asked for once."""

    def __init__(self, tokenizer):
        self.tokenizer = tokenizer
        self.special = special_tokens(tokenizer)
        self.blank = {(): True}  # whether what follows the end token is, by its ids

    def completion(self, prompt, dialogue):
        """The ids of `dialogue` from the end of `prompt` to the end-of-turn token (lists of int)."""
        begin = len(prompt)
        if dialogue[:begin] != prompt:
            raise InputError(
                "the chat template breaks the prefix property: a prompt with its generation prompt is not "
                "the beginning of the same dialogue with its answer; the template must render every turn "
                "alike"
            )
        last = range(len(dialogue) - 1, begin - 1, -1)
        end = next((position for position in last if dialogue[position] in self.special), None)
        if end is None or not self._is_blank(tuple(dialogue[end + 1 :])):
            raise InputError(
                "the chat template ends an answer without the tokenizer's end token or another special "
                "token, so that no policy could learn to stop; have the template write one after each answer"
            )
        return dialogue[begin : end + 1]

    def _is_blank(self, ids):
        if ids not in self.blank:
            self.blank[ids] = not self.tokenizer.decode(list(ids)).strip()
        return self.blank[ids]


def _render(tokenizer, messages, add_generation_prompt):
    """The text of `messages` by the chat template."""
    import jinja2

    try:
        return tokenizer.apply_chat_template(
            messages, add_generation_prompt=add_generation_prompt, tokenize=False
        )
    except jinja2.TemplateError as error:
        raise InputError(f"the chat template refuses the messages: {error}") from None


def _encode(tokenizer, texts, place):
    """Ids (list of list of int) of rendered `texts`, with the BOS that the tokenizer itself would add.

    Where the template wrote one, none is added. place: context manager around complaints of a text's number.
    """
    if not texts:
        return []
    encoded = tokenizer(texts, add_special_tokens=False, return_attention_mask=False, verbose=False)[
        "input_ids"
    ]
    bos = tokenizer.bos_token_id
    if bos is None or bos == tokenizer.eos_token_id:
        return encoded
    adds_one = None  # asked where a text has none
    for number, ids in enumerate(encoded):
        count = ids.count(bos)
        if count > 1:
            with place(number):
                raise InputError(
                    f"the chat template writes the BOS token {tokenizer.bos_token!r} more than once (or a "
                    "message holds it): a dialogue has exactly one"
                )
        if count == 0:
            if adds_one is None:
                adds_one = tokenizer("a")["input_ids"][:1] == [bos]
            if adds_one:
                ids.insert(0, bos)
    return encoded


@contextlib.contextmanager
def _in_place(place, number):
    """InputError within begins with place(number), if there is a place."""
    try:
        yield
    except InputError as error:
        if place is None:
            raise
        raise InputError(f"{place(number)}: {error}") from None


def _no_place(_):
    return contextlib.nullcontext()
