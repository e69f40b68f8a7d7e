"""The judges: what each looks at, in which order, and that positions mean nothing to them."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prefline import rewards
from prefline.errors import InputError
from prefline.judging import by_reference, by_reward
from prefline.judging.games import Game
from prefline.text import verdicts
from scripts.mt_bench.judge_mt_bench import load

LEGS = ("How many legs has a cat?", "A cat has 4 legs.")
LIST = ("Now add a candle to that list.", "- ribbon\n- whale\n- candle")
FLAG = ("What is that village known for? Answer in capital letters.", "LAMPS")

texts = st.text(alphabet="ab 4AB.\n-", max_size=20)


def winner(case, a, b):
    return by_reference.compare(*case, a, b)[0]


@pytest.mark.parametrize(
    ("case", "better", "worse"),
    [
        # Correctness: what the question gives away is not worth the answer.
        (LEGS, "4", "A cat has 5 legs."),
        (LEGS, "It has four legs.", "A cat is a beast."),
        (LEGS, "Well, legs, let me think about it, I say it is 4 after all.", "5"),
        (LEGS, "5", ""),
        (LIST, "- whale\n- candle\n- ribbon", "- ribbon\n- whale"),
        (LIST, "candle and ribbon and whale", "- ribbon\n- candle"),
        (("How much is 999 plus 1?", "1,000"), "It is 1000.", "It is 100."),
        (("Add 7 to that variable.", "lamps += 7"), "lamps += 7", "lamps = 7"),
        (("Say it twice.", "boo boo"), "boo, boo", "boo"),
        # Form: only between equally correct answers.
        (LIST, "- ribbon\n- whale\n- candle", "ribbon, whale, candle"),
        (LIST, "- ribbon\n- whale\n- candle", "1. ribbon\n2. whale\n3. candle"),
        (FLAG, "LAMPS", "lamps"),
        (FLAG, "LAMPS", "IT IS LAMPS"),
        # Brevity: only between equally well formed ones.
        (LEGS, "A cat has 4 legs.", "A cat has 4 legs, I should say, as all the cats here have."),
    ],
)
def test_reference_prefers(case, better, worse):
    assert winner(case, better, worse) == "A"
    assert winner(case, worse, better) == "B"


@pytest.mark.parametrize(
    ("case", "a", "b"),
    [
        (LEGS, "A cat has 4 legs.", "The cat, it has 4 legs!"),  # not clearly shorter
        (LEGS, "5", "A cat has 5 legs, as you know very well."),  # both wrong
        (LEGS, "5", "I do not know."),
        (LEGS, "", " \n"),
        (FLAG, "LAMPS", "LAMPS."),
    ],
)
def test_reference_ties(case, a, b):
    assert winner(case, a, b) == "tie"
    assert winner(case, b, a) == "tie"


def test_reference_counts_function_words_where_there_is_nothing_else():
    assert winner(("Which word comes first?", "the"), "the", "on") == "A"


@given(texts, texts, texts, texts)
def test_reference_is_free_of_position(question, wanted, a, b):
    forth, back = (by_reference.compare(question, wanted, *answers)[0] for answers in ((a, b), (b, a)))
    assert back == {"A": "B", "B": "A", "tie": "tie"}[forth]


@given(texts, texts.filter(str.strip), texts)
def test_nothing_beats_the_reference_in_correctness_and_form(question, wanted, answer):
    better, reason = by_reference.compare(question, wanted, wanted, answer)
    assert better != "B" or "words, not" in reason


def game(references=("A cat has 4 legs.",), a=("4",), b=("5",)):
    return Game(81, len(a), ["How many legs has a cat?", "And two?"][: len(a)], a, b, references)


def test_judgments_say_why_and_end_with_a_verdict_that_is_read_from_the_text():
    ((prompt, judgment),) = load("reference", 128).judge([game()])
    assert judgment == (
        "Assistant A is better than assistant B: it holds 100% of what the reference tells, the other 0%. "
        "[[A]]"
    )
    assert verdicts.verdict(judgment) == "A"
    assert "How many legs has a cat?" in prompt and "A cat has 4 legs." in prompt
    assert prompt.index("\n4") < prompt.index("\n5")


def test_reference_refuses_without_a_reference():
    with pytest.raises(InputError, match=r"turn 1: the judge `reference` needs a reference.*another judge"):
        load("reference", 128).judge([game(references=None)])


def test_unknown_judge():
    with pytest.raises(InputError, match="unknown judge 'dice'"):
        load("dice", 128)


class LengthScorer:
    """Scores an answer by its length, and remembers what it was asked."""

    def __init__(self):
        self.asked = []

    def batches(self, dialogues):
        self.asked += dialogues
        lengths = np.array([len(dialogue.completion) for dialogue in dialogues])
        yield range(len(dialogues)), rewards.Scores(lengths)


def test_reward_scores_each_whole_dialogue_once():
    scorer = LengthScorer()
    first = game(references=None, a=("one", "four"), b=("two", "five!"))
    swapped = first._replace(answers_a=first.answers_b, answers_b=first.answers_a)
    found = [verdicts.verdict(text) for _, text in by_reward.RewardJudge(scorer).judge([first, swapped])]
    assert found == ["B", "A"]
    assert len(scorer.asked) == 2
    assert [message["content"] for message in scorer.asked[0].messages] == [
        "How many legs has a cat?",
        "one",
        "And two?",
    ]
    assert scorer.asked[0].completion == "four"


def test_reward_scores_the_dialogue_that_the_policies_had():
    scorer = LengthScorer()
    by_reward.RewardJudge(scorer, "Be brief.").judge(
        [game(references=None, a=("one", "four"), b=("two", "five!"))]
    )
    for asked in scorer.asked:
        assert asked.messages[0] == {"role": "system", "content": "Be brief."}
        assert [message["role"] for message in asked.messages[1:]] == ["user", "assistant", "user"]


def test_reward_ties_equal_scores():
    _, text = by_reward.RewardJudge(LengthScorer()).judge([game(a=("abc",), b=("xyz",))])[0]
    assert verdicts.verdict(text) == "tie"
