"""Words that texts have in common: how evaluation questions are kept out of the data."""

import re

WORD = re.compile(r"[^\W_]+")


def words(text):
    """Return the words of `text` (list of str): runs of letters and digits, case and punctuation ignored."""
    return WORD.findall(text.casefold())


def ngrams(text, n):
    """Return the n-grams of `text` (set of tuples of str): every n words in a row; all words if fewer.

    So a text shorter than n words has something in common only with texts of the very same words. A text
    without words has nothing in common with any.
    """
    found = words(text)
    if len(found) < n:
        return {tuple(found)} if found else set()
    return {tuple(found[start : start + n]) for start in range(len(found) - n + 1)}


def of_texts(texts, n):
    """Return the n-grams (set) of all `texts`."""
    return set().union(*(ngrams(text, n) for text in texts))


def overlaps(text, known, n):
    """Return whether `text` shares an n-gram with those `known` (set, from `of_texts` with the same n)."""
    return not known.isdisjoint(ngrams(text, n))
