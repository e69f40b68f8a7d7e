"""Turn text into token ids: messages hold no control tokens, and no token spans two texts."""

import collections
import functools
import itertools
import json
import re

from prefline.errors import InputError

# A character that merges with no other in vocabularies whose tokenizers put a blank before the first word.
ANCHOR = "\x00"
# Private characters that stand for special tokens' texts in messages while a template renders them.
HIDING_PLACES = (range(0xF0000, 0xFFFFE), range(0x100000, 0x10FFFE))


class Encoder:
    """Encodes with a transformers tokenizer, whose properties are found once.

    special: {id: text} of the tokens that are structure in every text; written: those that are structure in
    all texts but answers. A text follows "" (nothing), "text" or "special" (a token of these).
    """

    def __init__(self, tokenizer, special, written=None):
        self.tokenizer = tokenizer
        self.special = special
        self.ids = {text: token for token, text in (special | (written or {})).items()}
        self.pattern = any_of(tuple(special.values()))
        self.every = any_of(tuple(self.ids))
        self.flags = {token.content: token for token in tokenizer.added_tokens_decoder.values()}
        # Llama 2's tokenizer puts a blank before the first word, and before the first behind a special token.
        adds = self._encode(["a"]) != self._behind_anchor(["a"])
        self.adds_blank = {"": adds, "text": False, "special": adds and self._adds_behind_special()}

    def encode(self, texts, follows="", as_text=False):
        """Return the ids (list of list of int) of `texts`, which share no token with what they follow.

        as_text: whether the texts of special tokens are ordinary text.
        """
        if not texts:
            return []
        if self.adds_blank[follows] == self.adds_blank[""]:
            return self._encode(texts, as_text)
        return self._behind_anchor(texts, as_text)

    def special_in(self, texts):
        """Return the texts of special tokens in `texts` (list of str), sorted; also after normalization."""
        found = {token for text in texts for token in self.pattern.findall(text)}
        if self.normalizes:
            found |= {self.special[token] for token in self._made(texts) if token in self.special}
        if found:  # one within another, too
            found |= {token for token in self.special.values() if any(token in text for text in texts)}
        return sorted(found)

    @functools.cached_property
    def normalizes(self):
        """Tell whether normalization may turn other text into a special token."""
        normalizer = getattr(getattr(self.tokenizer, "backend_tokenizer", None), "normalizer", None)
        named = (self.flags[text] for text in self.ids if text in self.flags)
        return normalizer is not None and any(token.normalized for token in named)

    def has_hidden(self, text, contents, shown):
        """Tell whether a rendered `text` has ordinary text that the tokenizer would read as a special token.

        contents: the messages' texts in it (list of str); shown: see `hide`.
        """
        if shown or not self.normalizes:
            return bool(shown)
        if any(token in self.special for token in self._made(contents)):
            return True
        written = collections.Counter(self.ids[part] for part in self.every.findall(text))
        return bool(self._made([text]) - written)

    def _made(self, texts):
        """Return how often (Counter) `texts` give each special token, by which they are no ordinary text."""
        plain, ordinary = (
            collections.Counter(
                token for ids in self._encode(texts, as_text) for token in ids if token in self._all
            )
            for as_text in (False, True)
        )
        return plain - ordinary

    @functools.cached_property
    def _all(self):
        return set(self.ids.values())

    def hide(self, texts, answers):
        """Return (hidden texts, shown): each special token's text is a private character in the hidden ones.

        answers: whether each text is an assistant's answer. shown: {character: text}; {} if no text has a
        special token's, and then `texts` are unchanged.
        """
        patterns = [self.pattern if answer else self.every for answer in answers]
        pairs = list(zip(patterns, texts, strict=True))
        found = sorted({match for pattern, text in pairs for match in pattern.findall(text)})
        if not found:
            return texts, {}
        used = set().union(*texts)
        free = (chr(place) for place in itertools.chain(*HIDING_PLACES) if chr(place) not in used)
        hidden = dict(zip(found, free, strict=False))
        if len(hidden) < len(found):
            raise InputError("the messages have all private characters of Unicode; remove some of them")
        replaced = [pattern.sub(lambda match: hidden[match[0]], text) for pattern, text in pairs]
        return replaced, {character: text for text, character in hidden.items()}

    def encode_hidden(self, text, shown, follows=""):
        """Return the ids (list of int) of a `text` in which only exact special tokens are structure.

        shown: the characters that stand for ordinary text; see `hide`.
        """
        ids, before = [], None
        for part in re.split(f"({self.every.pattern})", text):
            if part in self.ids:
                ids.append(self.ids[part])
                follows, before = "special", self.flags.get(part)
                continue
            if before is not None and before.rstrip:
                part = part.lstrip()
            if part:
                ids += self.encode([show(part, shown)], follows, as_text=True)[0]
        return ids

    @functools.cached_property
    def _plain(self):
        """Return a tokenizer to which the texts of all `ids` are ordinary text; None if ours is one.

        `split_special_tokens` splits only those that the tokenizer calls special.
        """
        backend = getattr(self.tokenizer, "backend_tokenizer", None)
        if backend is None or all(text not in self.flags or self.flags[text].special for text in self.ids):
            return None
        from tokenizers import Tokenizer

        made = json.loads(backend.to_str())
        for token in made["added_tokens"]:
            token["special"] = token["special"] or token["content"] in self.ids
        plain = Tokenizer.from_str(json.dumps(made))
        plain.encode_special_tokens = True
        plain.no_truncation()
        plain.no_padding()
        return plain

    def _encode(self, texts, as_text=False):
        if as_text and self._plain is not None:
            return [each.ids for each in self._plain.encode_batch_fast(list(texts), add_special_tokens=False)]
        if self._is_backend:
            # Without what transformers adds to ids: a third of the time. Its own calls set these, too.
            backend = self.tokenizer.backend_tokenizer
            backend.no_truncation()
            backend.no_padding()
            backend.encode_special_tokens = as_text
            return [each.ids for each in backend.encode_batch_fast(list(texts), add_special_tokens=False)]
        encoded = self.tokenizer(
            list(texts),
            add_special_tokens=False,
            return_attention_mask=False,
            verbose=False,
            split_special_tokens=as_text,
        )
        return encoded["input_ids"]

    @functools.cached_property
    def _is_backend(self):
        """Tell whether the tokenizer's ids are those of its backend, with no code of its class besides."""
        from transformers import PreTrainedTokenizerFast

        names = ("_encode_plus", "__call__")
        own = (getattr(type(self.tokenizer), name, None) for name in names)
        return list(own) == [getattr(PreTrainedTokenizerFast, name) for name in names]

    def _behind_anchor(self, texts, as_text=False):
        (anchor,) = self._encode([ANCHOR])
        encoded = self._encode([ANCHOR + text for text in texts], as_text)
        return [ids[len(anchor) :] for ids in encoded]

    def _adds_behind_special(self):
        plain = next(
            (text for text in self.ids if not (flag := self.flags.get(text)) or not flag.rstrip), None
        )
        return plain is not None and self._encode([f"{plain}a"])[0][1:] == self._encode(["a"])[0]


@functools.lru_cache(maxsize=32)
def any_of(texts):
    """Return the pattern (re.Pattern) that finds any of `texts` (tuple of str), the longest first."""
    longest_first = sorted(texts, key=lambda text: (-len(text), text))
    return re.compile("|".join(map(re.escape, longest_first)) or "(?!)")


def show(text, shown):
    """Return `text` with the private characters of `shown` replaced by what they hide."""
    return text.translate({ord(character): hidden for character, hidden in shown.items()})
