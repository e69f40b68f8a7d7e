"""Whether a text gives away an evaluation question: shared word n-grams and near-copies."""

from prefline.data import ngrams

SHARED_WORDS = 8
NEAR_COPY = 0.55


def jaccard(one, two):
    return len(one & two) / len(one | two) if one | two else 0.0


class HeldOut:
    """The evaluation questions, and the test whether a text shares too much with one of them."""

    def __init__(self, questions):
        self.long_ngrams = ngrams.of_texts(questions, SHARED_WORDS)
        self.trigrams = [ngrams.ngrams(question, 3) for question in questions]

    def shares_ngram(self, text):
        return ngrams.overlaps(text, self.long_ngrams, SHARED_WORDS)

    def near_copy(self, question):
        trigrams = ngrams.ngrams(question, 3)
        return any(jaccard(trigrams, held_out) >= NEAR_COPY for held_out in self.trigrams)

    def gives_away(self, question):
        return self.shares_ngram(question) or self.near_copy(question)
