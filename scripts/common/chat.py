"""Chat templates in token ids: exactly one BOS, and a prompt that is a prefix of its dialogue.

Everything downstream works on the ids made here. Rendering to text and tokenizing again is how published
pipelines come by a second BOS, so nothing else in the project renders a template.
"""

from scripts.common.errors import InputError

ROLES = ("system", "user", "assistant")


def load_tokenizer(path):
    """The tokenizer of the model directory `path`; InputError if it has no chat template."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(path, trust_remote_code=False)
    if not tokenizer.chat_template:
        raise InputError(
            f"{path}: the tokenizer has no chat template; add a chat_template.jinja to the model"
        )
    return tokenizer


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


def prompt_ids(tokenizer, messages, add_generation_prompt=True):
    """Ids (list of int) of `messages` up to where the assistant's answer begins, with exactly one BOS.

    add_generation_prompt: whether they hold the beginning of the assistant's turn.
    """
    return _with_one_bos(tokenizer, _render(tokenizer, messages, add_generation_prompt))


def prompt_and_completion_ids(tokenizer, messages, completion):
    """(prompt_ids, completion_ids) of an answer: the completion ends with the end-of-turn token.

    That is the special token which the template writes after the answer; it need not be the tokenizer's
    eos_token (base models end documents with another). What a template writes after it (a line feed, often)
    is nobody's to learn: a policy stops at the token. Raises InputError if the prompt's ids are not a prefix
    of the dialogue's.
    """
    prompt = prompt_ids(tokenizer, messages)
    answer = {"role": "assistant", "content": completion}
    dialogue = _with_one_bos(tokenizer, _render(tokenizer, [*messages, answer], add_generation_prompt=False))
    if dialogue[: len(prompt)] != prompt:
        raise InputError(
            "the chat template breaks the prefix property: a prompt with its generation prompt is not the "
            "beginning of the same dialogue with its answer; the template must render every turn alike"
        )
    ids = dialogue[len(prompt) :]
    special = special_tokens(tokenizer)
    end = max((position for position, token in enumerate(ids) if token in special), default=None)
    if end is None or tokenizer.decode(ids[end + 1 :]).strip():
        raise InputError(
            "the chat template ends an answer without the tokenizer's end token or another special token, so "
            "that no policy could learn to stop; have the template write one after each answer"
        )
    return prompt, ids[: end + 1]


def _render(tokenizer, messages, add_generation_prompt):
    import jinja2

    try:
        rendered = tokenizer.apply_chat_template(
            messages, add_generation_prompt=add_generation_prompt, tokenize=True, return_dict=True
        )
    except jinja2.TemplateError as error:
        raise InputError(f"the chat template refuses the messages: {error}") from None
    return list(rendered["input_ids"])


def _with_one_bos(tokenizer, ids):
    """`ids` with the BOS that the tokenizer itself would add where the template wrote none."""
    bos = tokenizer.bos_token_id
    if bos is None or bos == tokenizer.eos_token_id:
        return ids
    if ids.count(bos) > 1:
        raise InputError(
            f"the chat template writes the BOS token {tokenizer.bos_token!r} more than once (or a message "
            "holds it): a dialogue has exactly one"
        )
    if bos not in ids and tokenizer("a")["input_ids"][:1] == [bos]:
        return [bos, *ids]
    return ids
