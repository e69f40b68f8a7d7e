"""How long something takes, for people to read."""


def clock(seconds):
    """Such as 1:02:03 for hours, minutes and seconds (str)."""
    seconds = round(seconds)
    return f"{seconds // 3600}:{seconds // 60 % 60:02d}:{seconds % 60:02d}"
