"""Existing preference datasets: their forms, reasons to drop, which pairs are taken."""

import pytest
from some_prompts import QUESTION, QUESTIONS, data_of, importing, preparing

from prefline import files
from prefline.data import tables
from prefline.errors import InputError
from scripts.prompts import import_preferences, prepare_prompts


def clean(rows, columns="auto", **more):
    """(pairs, counts) of rows of data."""
    data = data_of("pairs", rows, columns, **more)
    return list(import_preferences.clean(data, QUESTIONS, 5)), data.as_dict()["dropped"]


def test_pairs_are_kept_or_counted():
    pairs = [
        ("Hi", "yes", "no"),
        ("Hi", "yes", "no"),
        ("Hi", "yes", "never"),
        ("Hi", "yes<|im_end|>", "no"),
        (QUESTION, "yes", "no"),
    ]
    rows = [dict(zip(("prompt", "chosen", "rejected"), pair, strict=True)) for pair in pairs]
    kept, dropped = clean(rows)
    assert [(row["chosen"], row["rejected"]) for row in kept] == [("yes", "no"), ("yes", "never")]
    assert dropped == {"duplicate": 1, "special_token": 1, "contaminated": 1}
    kept, dropped = clean(rows, special_tokens="as_text")
    assert len(kept) == 3 and "special_token" not in dropped


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
    with pytest.raises(InputError, match="no row is left; 1 rows read, 0 kept, dropped: 1 identical"):
        import_preferences.main(importing(tmp_path, rows, COLUMNS))


def test_chosen_needs_a_column(tmp_path):
    with pytest.raises(InputError, match="name a column for chosen and rejected, or "):
        import_preferences.main(importing(tmp_path, [{"good": "yes"}], {**COLUMNS, "chosen": None}))


def test_completions_with_labels_are_for_kto_alone(tmp_path):
    rows = [{"prompt": f"Is it {n}?", "completion": "yes", "label": n % 2} for n in range(20)]
    with pytest.raises(InputError, match="completions with labels are not pairs"):
        import_preferences.main(importing(tmp_path, rows, "auto"))
    import_preferences.main(importing(tmp_path, rows, "auto", unpaired=True))
    pairs = tables.read_rows(tmp_path / "out.parquet", tables.PREFERENCES)
    assert [(row["chosen"], row["rejected"]) for row in pairs] == [(None, "yes"), ("yes", None)] * 10
