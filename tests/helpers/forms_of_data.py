"""Small rows of data in the forms that people have, and what a reader makes of one."""

from some_prompts import assistant, data_of, user

ASK, SAY = "Why is the sky blue?", "It scatters light."
SYSTEM = {"role": "system", "content": "Be brief."}
TOOL = {"role": "tool", "content": "7 degrees"}
CALL = {"role": "assistant", "content": None, "tool_calls": [{"id": "1", "function": {"name": "f"}}]}


def said(speaker, text):
    return {"from": speaker, "value": text}


def parts(role, *texts):
    return {"role": role, "content": [{"type": "text", "text": text} for text in texts]}


def image(role="user"):
    return {"role": role, "content": [{"type": "image_url", "image_url": {"url": "x.png"}}]}


DIALOGUES = {"chosen": [user(ASK), assistant(SAY)], "rejected": [user(ASK), assistant("No.")]}
LEARNT = [user(ASK), assistant(SAY)]


def made(entrance, row, columns="auto", **more):
    """What the row beside good ones becomes (dict), or the reason (str) why it is dropped."""
    data = data_of(entrance, [row], columns, **more)
    rows = list(data)
    if not rows:
        (reason,) = data.as_dict()["dropped"]
        return reason
    return rows[0]
