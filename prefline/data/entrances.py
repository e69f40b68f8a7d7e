"""The entrances of data, and the fields that each needs: one of these sets of them."""

from prefline.errors import InputError

NEEDED = {
    "prompts": ({"prompt"}, {"dialogue"}),
    "pairs": (
        {"chosen", "rejected"},
        {"output_1", "output_2", "preference"},
        {"output_1", "output_2", "preferred_index"},
        {"completions"},
        {"completion", "label"},
    ),
    "dialogues": ({"messages"}, {"prompt", "completion"}, {"text"}),
    "texts": ({"text"},),
}


def check(entrance, columns, where):
    """Raise InputError, naming `where`, if `columns` ({field: column or None}) lack what it needs."""
    named = {field for field, column in columns.items() if column is not None}
    if not any(fields <= named for fields in NEEDED[entrance]):
        wanted = ", or ".join(" and ".join(sorted(fields)) for fields in NEEDED[entrance])
        raise InputError(
            f"{where}: name a column for {wanted}; it names {', '.join(sorted(named)) or 'none'}"
        )
