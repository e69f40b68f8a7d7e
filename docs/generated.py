"""Replace the generated part of a page, which is between two marks."""


def replaced(text, marks, made):
    """Return a page (str) with `made` (str) between its marks, (begin, end)."""
    begin, end = marks
    before, after = text.split(begin)[0], text.split(end)[1]
    return f"{before}{begin}\n\n{made}\n\n{end}{after}"
