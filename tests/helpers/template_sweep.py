"""Try a chat template at every entrance of the workflow, against what it renders and a policy would sample.

`verdicts(tokenizer)` gives {entrance: "exact", "refused: …", or "wrong: …"}. What is right is found out here
from the template's own renderings, without prefline.text, but for the refusals' sentences.
"""

import os
import re
from pathlib import Path

from prefline import files
from prefline.errors import InputError
from prefline.text import chat, templates
from scripts.models import train_sft

NAMES = {
    "prompts": "prompts, of one and of two questions",
    "pairs": "given pairs",
    "rewards": "dialogues of reward models",
    "sft": "SFT, one turn",
    "sft_turns": "SFT, three turns",
    "system": "system messages",
    "as_text": "texts of special tokens in messages",
}
ENTRANCES = tuple(NAMES)
# Answers that tokenizers like to merge with what is before or behind them.
ANSWERS = (
    "Certainly.",
    "\n\nFirst: apples\n- second: pears",
    " leading blank, trailing newline\n",
    "```python\n    indented = 1\n```",
    "naïve 東京 🙂 répondu",
    "A < b > c & d {{ braces }} {% percent %}",
)
QUESTIONS = ("What is kumquat?", "\nAnd zebra, please?\n", "Lastly: 東 xylophone")
SYSTEM = "You speak marmalade."
REASONING = {"<think>": "</think>", "[THINK]": "[/THINK]", "<|channel>thought": "<channel|>"}
# Texts that look like control tokens, to give a bare template a tokenizer that has them.
CONTROL = re.compile(
    r"<\|[^\s<>{}'\"|]+\|?>|<[^\s<>{}'\"|/]+\|>|<\uff5c[^\uff5c<>]+\uff5c>|\[\|[^\[\]|]+\|\]|</?s>"
    r"|<(?:start|end)_of_(?:turn|image|utterance)>|<[be]os>"
)


def tokenizers(folder):
    """Yield (name, tokenizer) of every tokenizer with a template and every bare template in `folder`.

    A bare template gets the tokenizer that knows most of its control tokens, and has the others added.
    """
    hosts = {path.parent.name: path.parent for path in sorted(Path(folder).rglob("tokenizer.json"))}
    known = {
        name: {token["content"] for token in files.read_json(path / "tokenizer.json")["added_tokens"]}
        for name, path in hosts.items()
    }
    bare = {name: [] for name in hosts}
    for path in sorted(Path(folder).rglob("*.jinja")):
        if path.parent.name not in hosts:
            wanted = set(CONTROL.findall(path.read_text()))
            host = max(hosts, key=lambda name: (len(wanted & known[name]), name))
            bare[host].append((path, wanted))
    for host, templates_of_it in bare.items():
        from transformers import AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(hosts[host])
        if tokenizer.chat_template:
            yield host, settled(tokenizer, tokenizer.get_chat_template())
        missing = set().union(*(wanted for _, wanted in templates_of_it)) - known[host]
        add_special(tokenizer, missing)
        for path, _ in templates_of_it:
            yield path.stem, settled(tokenizer, path.read_text())


def add_special(tokenizer, texts):
    """Make `texts` special tokens of a tokenizer."""
    from tokenizers import AddedToken

    tokens = [AddedToken(text, special=True, normalized=False) for text in sorted(texts)]
    tokenizer.add_tokens(tokens, special_tokens=True)


def settled(tokenizer, template):
    """`tokenizer` with a template, in which one date is settled."""
    tokenizer.chat_template = templates.settled(template, "2026-01-31")
    return tokenizer


def verdicts(tokenizer):
    """{entrance: verdict} of a tokenizer with its template; see the module."""
    found = {}
    for entrance in ENTRANCES:
        try:
            globals()[f"_{entrance}"](Oracle(tokenizer))
            found[entrance] = "exact"
        except InputError as error:
            found[entrance] = _judged(error, tokenizer)
        except AssertionError as error:
            found[entrance] = f"wrong: {error!s:.300}"
    return found


def table(found):
    """The counts of {name: verdicts} as the Markdown table of docs/chat_templates.md."""
    lines = ["| entrance | exact | refused | wrong |", "|---|---|---|---|"]
    for entrance in ENTRANCES:
        said = [verdicts[entrance].split(":")[0] for verdicts in found.values()]
        counts = [said.count(verdict) for verdict in ("exact", "refused", "wrong")]
        lines.append(f"| {NAMES[entrance]} | {counts[0]} of {len(said)} | {counts[1]} | {counts[2]} |")
    return "\n".join(lines)


def turns(number, system=None):
    """A dialogue (messages) of so many questions and answers."""
    made = [] if system is None else [{"role": "system", "content": system}]
    for question, answer in list(zip(QUESTIONS, ANSWERS, strict=False))[:number]:
        made += [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    return made


class Oracle:
    """What a template renders, and what is asked of ids."""

    def __init__(self, tokenizer):
        self.tokenizer = tokenizer
        self.special = {token.content for token in tokenizer.added_tokens_decoder.values() if token.special}
        self.special |= set(tokenizer.all_special_tokens)
        self.parts = "kumquat" not in self._rendered(turns(1)[:1], True, False)

    def _rendered(self, messages, prompt, parts):
        if parts:
            messages = [{**each, "content": [{"type": "text", "text": each["content"]}]} for each in messages]
        try:
            return self.tokenizer.apply_chat_template(messages, add_generation_prompt=prompt, tokenize=False)
        except Exception:  # what a template's code raises is any of Python's errors
            return ""

    def render(self, messages, prompt=False):
        return self._rendered(messages, prompt, self.parts)

    def encode(self, text):
        """Ids of a text with the one BOS that there is to be."""
        ids = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        bos = self.tokenizer.bos_token_id
        if bos in (None, self.tokenizer.eos_token_id) or bos in ids:
            return ids
        return [bos, *ids] if self.tokenizer("a")["input_ids"][0] == bos else ids

    def decode(self, ids):
        text = self.tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)
        bos = self.tokenizer.bos_token
        return text.removeprefix(bos) if bos else text

    def same(self, ids, text):
        """Assert that `ids` are those of `text`, without blanks where the tokenizer does not keep them."""
        said, bos = self.decode(ids), self.tokenizer.bos_token
        text = text.removeprefix(bos) if bos else text
        if self.decode(self.tokenizer(text, add_special_tokens=False)["input_ids"]).strip() != text.strip():
            said, text = "".join(said.split()), "".join(text.split())
        said, text = said.strip(), text.strip()
        assert said == text, f"{said[-200:]!r} is not {text[-200:]!r}"

    def bos(self, ids):
        bos = self.tokenizer.bos_token_id
        if bos not in (None, self.tokenizer.eos_token_id):
            assert ids.count(bos) in (0, 1), "several BOS"
            assert bos not in ids[1:], "BOS after other text"

    def words(self, ids, messages):
        said = self.decode(ids)
        for message in messages:
            for word in message["content"].split():
                assert word in said, f"{word!r} of {message['role']} is lost in {said!r:.300}"

    def end(self, text, answer):
        """Where in a dialogue's `text` the first special token behind its last answer ends."""
        begin = text.rindex(answer.strip()) + len(answer.strip())
        ends = [(text.find(token, begin), len(token)) for token in self.special if token in text[begin:]]
        assert ends, f"no end in {text!r}"
        place, length = min(ends, key=lambda end: (end[0], -end[1]))
        return place + length

    def answer(self, messages, answer, prompt, completion):
        """Assert that ids are those of a prompt and an answer, as a policy would sample it."""
        asked = self.render(messages, prompt=True)
        assert prompt == self.encode(asked), "the prompt's ids are not those that a policy is asked with"
        dialogue = [*messages, {"role": "assistant", "content": answer}]
        told = self.render(dialogue)
        if not any(token in told[told.rindex(answer.strip()) :] for token in self.special):
            # The user's next turn ends the answer.
            told = self.render([*dialogue, {"role": "user", "content": "w"}])
        end = self.end(told, answer)
        begin = told.rindex(answer.strip())
        common = len(os.path.commonprefix([asked, told[:begin]]))  # noqa: RUF071
        expected, rest = asked, told[common:begin]
        if asked[common:].strip():
            assert not rest.strip(), f"the answer begins with {rest!r} and {asked[common:]!r}"
            closing = next((end for start, end in REASONING.items() if asked.rstrip().endswith(start)), None)
            expected += f"\n{closing}\n\n" if closing else ""
        self.same(prompt + completion, expected + rest + told[begin:end])
        self.bos(prompt + completion)
        assert completion[-1] in chat.special_tokens(self.tokenizer), "no end token"
        assert completion[-1] == chat.end_of_turn(self.tokenizer), "ends with another token"
        self.words(prompt + completion, [*messages, {"role": "assistant", "content": answer}])


def _prompts(oracle):
    for messages in (turns(1)[:1], turns(2)[:3]):
        if messages[1:] and not oracle.render(messages, prompt=True):
            continue
        ids = chat.prompt_ids(oracle.tokenizer, messages)
        assert ids == oracle.encode(oracle.render(messages, prompt=True))
        oracle.bos(ids)
        oracle.words(ids, messages)


def _pairs(oracle):
    messages = turns(1)[:1]
    ((prompt, made),) = chat.prompts_and_completions(oracle.tokenizer, [(messages, ANSWERS)])
    for answer, completion in zip(ANSWERS, made, strict=True):
        oracle.answer(messages, answer, prompt, completion)


def _rewards(oracle):
    for dialogue in [[*turns(1)[:1], {"role": "assistant", "content": answer}] for answer in ANSWERS]:
        ids = chat.dialogue_ids(oracle.tokenizer, dialogue)
        assert ids == oracle.encode(oracle.render(dialogue)), "the dialogue is not as rendered"
        oracle.bos(ids)
        oracle.words(ids, dialogue)


def _learnt(oracle, messages):
    """Every answer is learnt once, behind its prompt."""
    spans = []
    for example in train_sft.examples(oracle.tokenizer, messages):
        ids, labels = example["input_ids"], example["labels"]
        assert len(ids) == len(labels)
        begin = None
        for place, label in enumerate([*labels, train_sft.IGNORED]):
            if label == train_sft.IGNORED and begin is not None:
                spans.append((ids[:begin], labels[begin:place]))
                begin = None
            elif label != train_sft.IGNORED and begin is None:
                begin = place
    answers = [number for number, message in enumerate(messages) if message["role"] == "assistant"]
    assert len(spans) == len(answers), f"{len(spans)} answers learnt of {len(answers)}"
    for number, (prompt, completion) in zip(answers, spans, strict=True):
        oracle.answer(messages[:number], messages[number]["content"], prompt, completion)


def _sft(oracle):
    _learnt(oracle, turns(1))


def _sft_turns(oracle):
    _learnt(oracle, turns(3))


def _system(oracle):
    asked = turns(1, SYSTEM)[:2]
    ids = chat.prompt_ids(oracle.tokenizer, asked)
    assert ids == oracle.encode(oracle.render(asked, prompt=True))
    oracle.words(ids, asked)
    folded = templates.settled(oracle.tokenizer.chat_template, None, system_message="first_user")
    other = oracle.tokenizer.chat_template
    oracle.tokenizer.chat_template = folded
    try:
        oracle.words(chat.prompt_ids(oracle.tokenizer, asked), asked)
    finally:
        oracle.tokenizer.chat_template = other


def _as_text(oracle):
    """Texts of special tokens in messages are text: they add no control token, and none is lost."""
    tokenizer = oracle.tokenizer
    special = chat.special_tokens(tokenizer)
    names = {text for text in special.values() if text.isascii() and " " not in text}
    names -= set(tokenizer.init_kwargs.get("reasoning_markers") or ())
    token = tokenizer.eos_token if tokenizer.eos_token in names else min(names)
    plain, odd = "Say kumquat twice", f"Say {token} twice{token}"
    ids = []
    for text in (plain, odd):
        asked = [{"role": "user", "content": text}]
        try:
            ids.append(chat.prompt_and_completion_ids(tokenizer, asked, text))
        except InputError:
            ids.append((chat.prompt_ids(tokenizer, asked), []))
        ids[-1] += (chat.dialogue_ids(tokenizer, [*asked, {"role": "assistant", "content": text}]),)
    for harmless, made in zip(*ids, strict=True):
        controls = [[one for one in each if one in special] for each in (harmless, made)]
        assert controls[0] == controls[1], f"{token!r} in a message is a control token"
        known = oracle.decode(made).count(token) - oracle.decode(harmless).count(token)
        assert known == (2 * (1 + (made is ids[1][2])) if harmless else 0), f"{token!r} is lost"


def _judged(error, tokenizer):
    """The verdict of a refusal: the template's own renderings must show its reason."""
    oracle, said = Oracle(tokenizer), str(error)
    told = oracle.render(turns(2))
    if "the chat template refuses" in said or "the chat template fails" in said:
        shown = any(
            not oracle.render(messages, prompt)
            for messages, prompt in [(turns(3), False), (turns(1, SYSTEM)[:2], True), (turns(1), False)]
        )
    elif "ends an answer without" in said:
        shown = not any(token in told.split("Certainly")[1] for token in oracle.special)
    elif "more than once" in said or "after other text" in said:
        shown = tokenizer.bos_token in oracle.render(turns(2))[1:]
    elif "drops" in said:
        shown = any(
            word not in oracle.render(messages, True)
            for messages, word in [(turns(1, SYSTEM)[:2], "marmalade"), (turns(3)[:5], "kumquat")]
        )
    elif "begins an answer with" in said:
        asked, begun = oracle.render(turns(1)[:1], prompt=True), told.split("Certainly")[0]
        shown = not begun.startswith(asked) and not asked.startswith(begun)
    else:
        shown = False
    return f"refused: {said}" if shown else f"wrong: refused without a reason of the template's: {said}"
