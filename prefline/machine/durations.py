"""Format durations for people."""


def clock(seconds):
    """Return hours, minutes and seconds (str), such as 1:02:03."""
    seconds = round(seconds)
    return f"{seconds // 3600}:{seconds // 60 % 60:02d}:{seconds % 60:02d}"
