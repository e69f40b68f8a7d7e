"""Existing preference datasets: their forms, reasons to drop, which pairs are taken."""

import pytest
from some_prompts import QUESTION, QUESTIONS, SPECIAL, assistant, importing, preparing, user

from prefline import files
from prefline.data import tables
from prefline.errors import InputError
from scripts.prompts import import_preferences, prepare_prompts


@pytest.mark.parametrize(
    ("row", "made"),
    [
        ({"prompt": "Hi", "chosen": " yes ", "rejected": "no"}, ([user("Hi")], "yes", "no")),
        (
            {"prompt": [user("Hi")], "chosen": [assistant("yes")], "rejected": [assistant("no")]},
            ([user("Hi")], "yes", "no"),
        ),
        (
            {"chosen": [user("Hi"), assistant("yes")], "rejected": [user("Hi "), assistant("no")]},
            ([user("Hi")], "yes", "no"),
        ),
        (
            {
                "prompt": "Hi",
                "chosen": [user("Hi"), assistant("yes")],
                "rejected": [user("Hi"), assistant("no")],
            },
            ([user("Hi")], "yes", "no"),
        ),
        (
            {
                "chosen": [user("a"), assistant("b"), user("c"), assistant("d")],
                "rejected": [user("a"), assistant("b"), user("c"), assistant("e")],
            },
            ([user("a"), assistant("b"), user("c")], "d", "e"),
        ),
        (
            {
                "chosen": [user("a"), assistant("b"), user("c"), assistant("d")],
                "rejected": [user("a"), assistant("x"), user("c"), assistant("e")],
            },
            "different_prompts",
        ),
        ({"prompt": "Hi", "chosen": "same", "rejected": " same"}, "identical"),
        ({"prompt": "Hi", "chosen": "", "rejected": "no"}, "blank"),
        ({"prompt": None, "chosen": "yes", "rejected": "no"}, "blank"),
        ({"chosen": [user("Hi")], "rejected": [user("Ho")]}, "no_answer"),
        ({"chosen": [assistant("yes")], "rejected": [assistant("no")]}, "no_answer"),
    ],
)
def test_only_the_last_answer_differs(row, made):
    assert import_preferences.pair(row, "row 0", None) == made


def test_a_system_message_goes_before_an_imported_prompt():
    row = {"chosen": [user("Hi"), assistant("yes")], "rejected": [user("Hi"), assistant("no")]}
    messages, _, _ = import_preferences.pair(row, "row 0", "Be kind.")
    assert messages == [{"role": "system", "content": "Be kind."}, user("Hi")]


def test_answers_as_strings_need_a_prompt():
    with pytest.raises(InputError, match="row 0: the answers are without a prompt"):
        import_preferences.pair({"chosen": "yes", "rejected": "no"}, "row 0", None)


def test_an_answer_is_text():
    with pytest.raises(InputError, match="row 0: chosen is a string or a list of messages, not 3"):
        import_preferences.pair({"prompt": "Hi", "chosen": 3, "rejected": "no"}, "row 0", None)


def test_rewards_are_finite_or_none():
    assert import_preferences.reward("0.5", "row 0") == 0.5
    assert import_preferences.reward(None, "row 0") is None
    assert import_preferences.reward("", "row 0") is None
    for value in ("nan", float("inf"), "good"):
        with pytest.raises(InputError, match="row 0: a reward is a finite number"):
            import_preferences.reward(value, "row 0")


def test_pairs_are_kept_or_counted():
    pairs = [
        ("Hi", "yes", "no"),
        ("Hi", "yes", "no"),
        ("Hi", "yes", "never"),
        ("Hi", "yes<|im_end|>", "no"),
        (QUESTION, "yes", "no"),
    ]
    rows = [
        (f"row {number}", dict(zip(("prompt", "chosen", "rejected"), pair, strict=True)))
        for number, pair in enumerate(pairs)
    ]
    kept, dropped = import_preferences.import_rows(rows, None, SPECIAL, QUESTIONS, 5)
    assert [(row["chosen"], row["rejected"]) for row in kept] == [("yes", "no"), ("yes", "never")]
    assert dropped == {"duplicate": 1, "special_token": 1, "contaminated": 1}


COLUMNS = {
    "prompt": "prompt",
    "chosen": "good",
    "rejected": "bad",
    "chosen_reward": None,
    "rejected_reward": "score",
}


def test_import_preferences(tmp_path):
    rows = [
        {"prompt": f"Is it {number}?", "good": "yes", "bad": "no", "score": number} for number in range(20)
    ]
    import_preferences.main(importing(tmp_path, rows, COLUMNS))
    pairs = tables.read_rows(tmp_path / "out.parquet", tables.PREFERENCES)
    assert len(pairs) == 20
    assert {row["split"] for row in pairs} == {"train", "test"}
    assert pairs[3]["rejected_reward"] == 3.0
    for field in (
        "chosen_reward",
        "chosen_sample",
        "rejected_sample",
        "prompt_ids",
        "chosen_ids",
        "rejected_ids",
    ):
        assert pairs[3][field] is None
    splits = {row["prompt_id"]: row["split"] for row in pairs}
    prepare_prompts.main(preparing(tmp_path, rows, {"prompt": "prompt"}))
    pool = tables.read_rows(tmp_path / "out.parquet", tables.POOL)
    assert {row["prompt_id"]: row["split"] for row in pool} == splits


def test_some_of_the_pairs_are_taken_by_their_content(tmp_path):
    """Which ones does not depend on the order of the data, and fewer are among more."""
    rows = [{"prompt": f"Is it {n}?", "good": "yes", "bad": "no", "score": n} for n in range(30)]

    def taken(rows, number):
        import_preferences.main(importing(tmp_path, rows, COLUMNS, number))
        pairs = tables.read_rows(tmp_path / "out.parquet", tables.PREFERENCES)
        return {row["prompt_id"] for row in pairs}

    ten = taken(rows, 10)
    assert len(ten) == 10
    assert files.read_json(tmp_path / "out.json")["dropped"] == {"not_taken": 20}
    assert taken(rows[::-1], 10) == ten < taken(rows, 20)
    with pytest.raises(
        InputError, match=r"30 pairs are fit for use, but prompts\.preferences\.num_pairs is 31"
    ):
        taken(rows, 31)


def test_no_pair_left(tmp_path):
    rows = [{"prompt": "Hi", "good": "yes", "bad": "yes", "score": 0}]
    with pytest.raises(InputError, match="no pair is left; 1 rows read, 0 kept, dropped: 1 identical"):
        import_preferences.main(importing(tmp_path, rows, COLUMNS))


def test_chosen_needs_a_column(tmp_path):
    with pytest.raises(InputError, match=r"prompts\.preferences\.columns: chosen needs a column"):
        import_preferences.main(importing(tmp_path, [], {**COLUMNS, "chosen": None}))
