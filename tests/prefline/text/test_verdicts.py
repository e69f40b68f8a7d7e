"""Verdicts and ratings, in the words that judges write, and in FastChat's reading."""

import json
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sweeps import sweep

from prefline.text import verdicts

# Words that decide: what each says.
DECIDED = [
    ("Assistant A is better.\n[[A]]", "A"),
    ("so [[b]]", "B"),
    ("[[ B ]]", "B"),
    ("[[\nA\n]]", "A"),
    ("[[C]]", "tie"),
    ("[[c]]", "tie"),
    ("[[Tie]]", "tie"),
    ("[[TIE]]", "tie"),
    ("[[a tie]]", "tie"),
    ("[[It's a tie]]", "tie"),
    ("[[draw]]", "tie"),
    ("[[Equal]]", "tie"),
    ("[[Assistant B]]", "B"),
    ("[[assistant_a]]", "A"),
    ("[[Answer B]]", "B"),
    ("[[Model A]]", "A"),
    ("[[Response A]]", "A"),
    ("[[Assistant B is better]]", "B"),
    ("[[verdict: A]]", "A"),
    ("[[A>B]]", "A"),
    ("[[A >> B]]", "A"),
    ("[[B>>A]]", "B"),
    ("[[A<B]]", "B"),
    ("[[A=B]]", "tie"),
    ("**[[A]]**", "A"),
    ("[[**A**]]", "A"),
    ("`[[B]]`", "B"),
    ("```\n[[B]]\n```", "B"),
    ("__[[A]]__", "A"),
    (r"\[\[A\]\]", "A"),
    (r"$\boxed{[[A]]}$", "A"),
    (r"The verdict is: \boxed{B}", "B"),
    (r"$\text{[[B]]}$", "B"),
    (r"[[\text{A}]]", "A"),
    (r"$\boxed{\text{B}}$", "B"),
    (r"Verdict: $\boxed{\text{B}}$", "B"),
    ("【【A】】", "A"),
    ("这个回答更好。[[B]]", "B"),
    ("Ответ лучше. [[A]] [[A]]", "A"),
    ("Le verdict final : [[A]]", "A"),
    ("[[A]]\n\nAssistant A is more precise, and B is wrong about the year.", "A"),
    ('Your format: "[[A]]", "[[B]]" or "[[C]]".\n\nFinal verdict: [[C]]', "tie"),
    ("At first glance [[A]] seems right. On a closer look, B is better.\n[[B]]", "B"),
    ("Assistant A does not answer the question, so [[B]]", "B"),
    ("Assistant A isn't accurate. Thus: [[B]]", "B"),
    ("Neither is perfect, but assistant B is closer: [[B]]", "B"),
    ("If I had to choose, I would say [[A]]", "A"),
    ("Assistant B cites [1] and [2]. [[B]]", "B"),
    ("Assistant A wrote `x[[0]]`, which fails. [[B]]", "B"),
    ("Final verdict: [[A]]\r\n", "A"),
    ("<think>B? [[B]]. No.</think>[[A]]", "A"),
    ("B first, [[B]], no: A.\n</think>\n[[A]]", "A"),  # the template had opened it
    ("<think>first</think><think>[[B]]</think>\n[[A]]", "A"),
    ("[THINK]maybe [[A]][/THINK]Verdict: B", "B"),
    ("<|channel|>analysis<|message|>[[B]]?<|end|><|start|>assistant<|channel|>final<|message|>[[A]]", "A"),
    ('{"verdict": "B"}', "B"),
    ('{"reasoning": "A has {braces}", "winner": "Assistant A"}', "A"),
    ('```json\n{"Winner": "tie"}\n```', "tie"),
    ('{"explanation": "…", "final verdict": "[[B]]"}', "B"),
    ('Here you are:\n{"scores": {"A": 8, "B": 6}, "verdict": "A"}', "A"),
    ("Verdict: B", "B"),
    ("Both are fine.\n\n**Final Verdict:** Assistant A", "A"),
    ("Both are fine.\n\nMy verdict is: tie.", "tie"),
    ("The better answer is B.", "B"),
    ("The better response: A", "A"),
    ("**Winner: B**", "B"),
    ("Judgment: [A]", "A"),
    ("B", "B"),
    ("Assistant A.", "A"),
    ("(B)", "B"),
    ("Tie", "tie"),
]  # fmt: skip
# Words that decide nothing: the judge is asked again.
UNDECIDED = [
    "",
    "   \n",
    "[A] and [B] are both good",
    "[[D]]",
    "[[A or B]]",
    "Turn 1: [[A]]\nTurn 2: [[B]]",
    "[[A/B]]",
    "[[A]] or [[B]]?",
    "[[A]][[B]]",
    "[[A]]\n[[B]]",
    "Both [[A]] and [[B]] have merits.",
    "Not [[A]], so [[C]]",
    "I would not say [[A]] here; assistant B is clearly better.",
    "I can't give [[A]].",
    "I wouldn\u2019t go with [[B]]",
    "[[A]] would be wrong.",
    "[[A]] is not the right verdict",
    "Instead of [[A]]",
    'Output "[[A]]" if assistant A is better.',
    "I write [[C]] for a tie.",
    "If assistant A is better I must output [[A]]",
    'The format is "[[A]]" if A is better, "[[B]]" if B is better, and "[[C]]" for a tie.',
    "[[A]]\n\nAs told, I used [[A]], [[B]] or [[C]].",
    "I'm sorry, but I can't help with evaluating this content.",
    "As an AI, I have no opinion.",
    "Assistant A is more helpful, but B is better formatted.",
    "Verdict: A or B",
    "Verdict: not A",
    "Verdict: unclear",
    "Verdict: A\nVerdict: see above",
    "The answer to the question is a",
    '{"A": 8, "B": 7}',
    '{"verdict": "A", "winner": "B"}',
    '{"verdict": "both"}',
    '{"verdict": "A"}\nVerdict: B',
    '{"verdict": ',
    "<think>So it is [[A]]",
    "<think>If A is better I must output [[A]]",
    "<|channel|>analysis<|message|>[[B]]",
    "<think>[[A]]</think>",
    "$ERROR$",
    "[[rating]]",
    "[[A=A]]",
]
RATED = [
    ("Rating: [[7]]", 7),
    ("It claims [[10]]. It is wrong.\n\n[[ 2.5 ]]\n", 2.5),
    ("[[+8]]", 8),
    ("[[7.5]] because [3] is a quote", 7.5),
    ("[[7]] and again [[7]]", 7),
    ("[[8/10]]", 8),
    ("[[8 out of 10]]", 8),
    ("[[8]]/10", 8),
    ("[[9]] out of [[10]]", 9),
    ("Rating: [[score: 5]]", 5),
    ("Rating: [[Rating 5]]", 5),
    ("[[6 points]]", 6),
    ("**[[1]]**", 1),
    (r"$\boxed{[[4]]}$", 4),
    (r"Rating: \boxed{4}", 4),
    ('The format is "[[rating]]", for example "[[5]]". Rating: [[8]]', 8),
    ("It isn't wrong. Rating: [[9]]", 9),
    ("Score: 8 / 10", 8),
    ("**Score**: 8.5 out of 10.", 8.5),
    ("Rating: [7]", 7),
    ("7", 7),
    ("9/10", 9),
    ('{"rating": 6, "reason": "…"}', 6),
    ('{"score": "6/10"}', 6),
    ("<think>[[2]]?</think>\nRating: [[3]]", 3),
]
UNRATED = [
    "",
    "[4]",
    "As in [7], all is well.",
    "[[7]] or [[8]]",
    "Between [[6]] and [[7]].",
    "[[7-8]]",
    "Rating: 7-8",
    "[[11]]",
    "Good [[3]], I mean [[11]]",
    "Good: [[3]]. No: [[11]]",  # the last counts, not the last that would do
    "[[7]] or rather [[8]].",
    "[[-3]]",
    "[[9999" + "9" * 400 + "]]",
    "[[eight]] [[]] [8] 8",
    "[[nan]] [[inf]]",
    "[[0]]",
    "[[85]]",
    "[[4/5]]",
    "Rating: 80/100",
    "I cannot give [[10]].",
    "[[1]] if it is harmful.",
    "It has 3 errors",
    '{"rating": 6, "score": 7}',
    "<think>[[4]]",
    "[[seven]]",
]

WORDS = [text for text, _ in [*DECIDED, *RATED]] + UNDECIDED + UNRATED


# What judges wrote or could write, and all readings that a careful person accepts; null: unreadable.
LINES = Path(__file__).with_name("judges_words.jsonl").read_text("utf-8").splitlines()


# FastChat's own code fails at 08 and at digits beyond ASCII.
SAID = [json.loads(line)["text"] for line in LINES]
QUOTED = [text for text in SAID if not re.search("\\[\\[(0|\uff17)", text)]


@pytest.mark.parametrize("line", LINES)
def test_a_mention_is_no_decision(line):
    """Quoted answers, injected marks, formats, other languages, retractions, reasoning, tables and JSON."""
    case = json.loads(line)
    assert getattr(verdicts, case["kind"])(case["text"]) in case["right"]


@pytest.mark.parametrize(("text", "winner"), DECIDED)
def test_the_last_decision_counts(text, winner):
    assert verdicts.verdict(text) == winner


@pytest.mark.parametrize("text", UNDECIDED)
def test_what_decides_nothing_is_no_verdict(text):
    assert verdicts.verdict(text) is None


@pytest.mark.parametrize(("text", "rating"), RATED)
def test_the_last_rating_counts(text, rating):
    assert verdicts.rating(text) == rating


@pytest.mark.parametrize(
    ("text", "winner"),
    [("[[A]] since", "A"), ("A holds.\n[[A]]\n\nIt", "A"), ("Verdict: B", None), ("<think>[[A]]", None)],
)
def test_an_answer_that_was_cut_off_counts_by_its_mark_alone(text, winner):
    assert verdicts.verdict(text, complete=False) == winner
    assert verdicts.rating("Rating: 1", complete=False) is None


@pytest.mark.parametrize("text", UNRATED)
def test_what_rates_nothing_is_no_rating(text):
    assert verdicts.rating(text) is None


@pytest.mark.parametrize(
    ("text", "rating"),
    [("[[4/5]]", 4), ("[[-1]]", -1), ("Rating: 0/5", 0), ("[[7]]", None), ("[[4/10]]", None)],
)
def test_a_prompt_has_a_scale_of_its_own(text, rating):
    assert verdicts.rating(text, lowest=-1, highest=5) == rating


@given(
    st.lists(
        st.sampled_from(
            [*"[]ABC9.,:! \n*<>/{}\"'", "not ", "if ", "Verdict", "[[", "]]", "<think>", "</think>"]
        )
    )
)
def test_any_words_are_read_without_an_error(pieces):
    text = "".join(pieces)
    assert verdicts.verdict(text) in ("A", "B", "tie", None)
    found = verdicts.rating(text)
    assert found is None or 1 <= found <= 10


@given(st.text(alphabet="[]0123456789.-+ e"), st.integers(-5, 5), st.integers(6, 9))
def test_a_rating_is_in_range_or_none(text, lowest, highest):
    value = verdicts.rating(text, lowest=lowest, highest=highest)
    assert value is None or lowest <= value <= highest


@given(st.sampled_from(DECIDED), st.sampled_from(DECIDED))
def test_what_was_reasoned_decides_nothing(reasoned, said):
    if "think" not in reasoned[0].lower() + said[0].lower() and "channel" not in reasoned[0] + said[0]:
        assert verdicts.verdict(f"<think>{reasoned[0]}</think>\n\n{said[0]}") == said[1]


@pytest.mark.slow
def test_long_hostile_words_take_no_time():
    for text in (
        "[[" * 20_000,
        "if " * 20_000 + "[[A]]",
        "{" * 20_000,
        "not " * 20_000 + "[[A]]",
        "*" * 50_000,
        "[[A]] " * 20_000,
        "[[5]]\n" * 20_000,
        "x: [[A]]\ny: [[B]]\n" * 10_000,
        "```x\n" * 20_000,
        "so the " * 20_000 + "verdict: A",
        "<think" * 20_000,
    ):
        verdicts.verdict(text)
        verdicts.rating(text)


SHORT = [(text,) for text in (*(text for text in WORDS if len(text) < 400), *QUOTED)]


# One text of eight is a fast test.
@pytest.mark.parametrize(("text",), sweep(SHORT, lambda text: SHORT.index((text,)) % 8 == 0))
def test_fastchats_reading_is_its_own_codes(text, monkeypatch):
    common = pytest.importorskip("fastchat.llm_judge.common")
    monkeypatch.setattr(common, "chat_completion_openai", lambda *_, **__: text)
    for kind, read in [("pairwise", verdicts.fastchat_verdict), ("single", verdicts.fastchat_rating)]:
        judge = common.Judge(
            "gpt-4",
            {"type": kind, "system_prompt": "", "prompt_template": "{question}", "output_format": "[[A]]"}
            | ({"output_format": "[[rating]]"} if kind == "single" else {}),
        )
        question = {"question_id": 1, "turns": ["?"], "category": "writing"}
        question = type("Question", (dict,), {"question_id": 1})(question)
        answer = {"choices": [{"turns": [""]}]}
        if kind == "pairwise":
            winner, _, _ = common.run_judge_pair(question, answer, answer, judge, None, multi_turn=False)
            assert {"A": "A", "B": "B", "tie": "tie", "error": None}[winner] == read(text)
        else:
            found, _, _ = common.run_judge_single(question, answer, judge, None, multi_turn=False)
            assert found == (-1 if read(text) is None else read(text))


# Ways to put a decision into a sentence.
SENTENCES = [
    ("I believe [[A]] provides a better answer overall.", "A"),
    ("Therefore, my final verdict is [[A]] because it is more detailed and accurate.", "A"),
    ("Assistant B's response is better, [[B]].", "B"),
    ("In conclusion, [[B]] is the better response.", "B"),
    ("Overall, I'd give this one to [[B]].", "B"),
    ("[[A]] is better.", "A"),
    ("Assistant A [[A]] is more concise while Assistant B rambles.", "A"),
    ("Thus the verdict: [[C]] (tie).", "tie"),
    ("My choice would be [[A]]!", "A"),
    ("Considering all of that, the winner here has to be [[B]].", "B"),
    ("So it's a [[C]] for me", "tie"),
    (
        "Final Answer: [[B]]\n\nExplanation: Assistant B gave correct steps, while A erred in step 2.",
        "B",
    ),
    ("<answer>[[A]]</answer>", "A"),
    ("<verdict>B</verdict>", "B"),
    ("Verdict: [[A]] \u2013 it directly addresses the question", "A"),
    (
        "A's answer is more helpful. Final verdict: [[A]] Assistant A is significantly better",
        "A",
    ),
    ("[[A]] is my verdict.", "A"),
    ("Since both are wrong, [[C]]", "tie"),
    ("The better assistant is [[A]] as it follows instructions.", "A"),
    ("I rate both equally, hence [[C]]. Thank you.", "tie"),
    ("Winner: **Assistant B** [[B]]", "B"),
    ("### Verdict\n[[B]]", "B"),
    ("### Verdict\n\n**[[B]]**\n\n---\nLet me know if you need more detail.", "B"),
    ("The final verdict is: [[A]]. Assistant A does not make the error that B makes.", "A"),
    ("Assistant A is not better than B, therefore [[B]].", "B"),
    ("[[B]] (Assistant B is better because it does not hallucinate.)", "B"),
    ("回答Bが優れています。[[B]]", "B"),
    ("助手A更好\uff1a[[A]]", "A"),
    ("Verdict → [[A]]", "A"),
    ("It is a close call between the two, but I lean towards [[A]].", "A"),
    ("I would choose [[B]] over Assistant A.", "B"),
    ("After careful consideration [[B]] edges out.", "B"),
]
RATED_SENTENCES = [
    ("I would rate this response a [[7]].", 7),
    ("Rating: [[8]]\n\nThe response is good.", 8),
    ("This deserves a [[9]] because it is thorough.", 9),
    ("Overall score: [[6]] out of 10", 6),
    ("I give it [[5]].", 5),
    ("[[3]] - poor", 3),
    ("My rating for the assistant's answer is [[10]]!", 10),
    ("The final rating would be around [[7]].", 7),
    ("Rating: [[8.5]]/10", 8.5),
    ("**Overall Rating: 8/10**", 8),
    ("Final Score: 7", 7),
    ("The assistant earns [[8]] points.", 8),
    ("Rating: [[4]], as the answer is incomplete.", 4),
    ("For these reasons I assign a rating of [[2]] to this response.", 2),
]


@pytest.mark.parametrize(("text", "winner"), SENTENCES)
def test_a_decision_within_a_sentence_counts(text, winner):
    assert verdicts.verdict(text) == winner


@pytest.mark.parametrize(("text", "rating"), RATED_SENTENCES)
def test_a_rating_within_a_sentence_counts(text, rating):
    assert verdicts.rating(text) == rating
