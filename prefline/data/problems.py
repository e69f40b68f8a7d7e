"""Read problems with right answers, as those of GSM8K and MATH: each row has a question and a reference."""

from prefline.data import reading
from prefline.errors import InputError


def read(source, columns, system):
    """Return the problems of a data source: dicts of messages, reference and where, their place.

    columns: {"prompt": column, "reference": column}; system: a system message (str), or None. Raises
    InputError for rows without a question or a reference, and for questions that are asked twice.
    """
    rules = {"special_tokens": "as_text", "max_dropped": 0.0}
    data = reading.Data("prompts", source, columns, rules, system=system)
    asked, rows = {}, []
    for row in data:
        question = row["messages"][-1]["content"]
        if row["reference"] is None or not row["reference"].strip():
            raise InputError(
                f"{row['where']}: has no reference answer in the column {columns['reference']!r}"
            )
        if question in asked:
            raise InputError(f"{row['where']}: asks what {asked[question]} asks; remove one of the two")
        asked[question] = row["where"]
        rows.append(row)
    data.finish()
    return rows
