"""A conversation with policies: what they say is what the workflow samples, and nothing typed is lost."""

import io
import json
import os
import pty
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from rich.console import Console
from small_model import make_model, make_tokenizer

from prefline import engines, files, seeds
from prefline.text import chat as templates
from tools import chat

SAMPLING = ["--temperature", "0.9", "--top-p", "1", "--top-k", "0", "--max-tokens", "8", "--seed", "3"]


@pytest.fixture(scope="module")
def policies(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    return [str(make_model(folder / name, initializer_range=size)) for name, size in (("a", 0.4), ("b", 0.5))]


@pytest.fixture
def say(monkeypatch, capsys):
    """say(text, *words) -> (standard output, standard error) of a chat in which `text` is piped."""

    def piped(text, *words):
        monkeypatch.setattr(sys, "stdin", io.StringIO(text))
        chat.main([*words, *SAMPLING])
        return capsys.readouterr()

    return piped


def sampled(policy, messages):
    """What the workflow samples: the ids of a policy's answer, as the vibe check asks for it."""
    engine = engines.load("transformers", policy, 4, "float32")
    ids = templates.prompt_ids(engine.tokenizer, messages)
    request = engines.Request(ids, seeds.derive(3, "vibe_check", json.dumps(messages)))
    (made,) = engine.generate([request], engines.Sampling(0.9, 1.0, 0, 8))
    return engine.tokenizer, made.ids


def test_a_conversation_is_sampled_as_the_workflow_samples_and_is_resumed(policies, say, tmp_path):
    saved, said = tmp_path / "talk.jsonl", []
    messages = [{"role": "system", "content": "Be brief."}]
    for question in ("the cat", "sat on <|im_end|>\nthe mat"):  # the second has a special token's text
        messages.append({"role": "user", "content": question})
        tokenizer, ids = sampled(policies[0], messages)
        system = [] if said else ["--system", "Be brief."]
        said.append(say(f"{question}\n", policies[0], "--save", str(saved), *system).out)
        assert said[-1] == chat.printable(tokenizer.decode(ids[:-1] if ids[-1] in (4, 1) else ids)) + "\n"
        messages.append({"role": "assistant", "content": templates.said(tokenizer, ids).answer.strip()})
        assert [json.loads(line) for line in saved.read_text().splitlines()] == [
            {"model": policies[0], "messages": messages}
        ]


def test_an_empty_file_is_a_new_conversation_and_another_path_of_the_model_the_same(policies, say, tmp_path):
    path, model = tmp_path / "talk.jsonl", Path(policies[0])
    path.touch()
    say("the cat\n", policies[0], "--save", str(path))
    say("the mat\n", f"{model.parent}/../{model.parent.name}/{model.name}", "--save", str(path))
    (row,) = [json.loads(line) for line in path.read_text().splitlines()]
    assert [one["content"] for one in row["messages"] if one["role"] == "user"] == ["the cat", "the mat"]
    assert [one.name for one in tmp_path.iterdir()] == ["talk.jsonl"]


def test_a_saved_conversation_is_read_back_whatever_its_characters(tmp_path):
    path = tmp_path / "talk.jsonl"
    rows = [{"role": "user", "content": "a\u2028b\x85c"}, {"role": "assistant", "content": "d"}]
    path.write_text(json.dumps({"model": "m", "messages": rows}, ensure_ascii=False) + "\n", encoding="utf-8")
    assert chat.resume(path, ["m"], None) == [rows]
    files.write_jsonl(path, [{"model": "m", "messages": []}])  # the first answer was stopped
    assert chat.resume(path, ["m"], "") == [[]]
    path.write_bytes(b"caf\xe9\n")
    with pytest.raises(chat.InputError, match="no conversation of this program"):
        chat.resume(path, ["m"], None)


def test_a_message_that_is_no_utf_8_is_refused(policies, say):
    with pytest.raises(chat.InputError, match="no UTF-8"):
        say("caf\udce9", policies[0])


def test_two_policies_have_conversations_of_their_own(policies, say, tmp_path):
    saved = tmp_path / "talk.jsonl"
    for question in ("the cat", "the mat"):
        said = say(question, *policies, "--save", str(saved)).out
        assert said.startswith("a:\n") and "\nb:\n" in said
    rows = [json.loads(line) for line in saved.read_text().splitlines()]
    assert [row["model"] for row in rows] == policies and len(rows[0]["messages"]) == 4
    for row in rows:
        tokenizer, ids = sampled(row["model"], row["messages"][:3])
        assert row["messages"][3]["content"] == templates.said(tokenizer, ids).answer.strip()
    assert rows[0]["messages"][1] != rows[1]["messages"][1]


class Stopping(io.StringIO):
    """A terminal at which somebody presses Ctrl-C when the third token appears."""

    def flush(self):
        if self.tell() and not self.getvalue().endswith("\n") and next(self.presses, False):
            raise KeyboardInterrupt


def test_ctrl_c_keeps_what_was_said(policies):
    policy, out = chat.Policy(policies[0], "float32", []), Stopping()
    out.presses = iter([False, False, True])
    sampling = engines.Sampling(0.9, 1.0, 0, 60)
    assert chat.answer([policy], "the cat", sampling, 3, out)
    assert len(policy.ids) == 3 and not policy.ended()
    assert policy.messages[1]["content"] == policy.tokenizer.decode(policy.ids).strip()
    assert not chat.answer([policy], "the mat", sampling, 3, out) and len(policy.messages) == 4


def test_an_answer_has_the_room_that_is_left(policies):
    policy, out = chat.Policy(policies[0], "float32", []), io.StringIO()
    sampling = engines.Sampling(0.9, 1.0, 0, 120)
    chat.answer([policy], "a" * 70, sampling, 3, out)
    prompt = len(templates.prompt_ids(policy.tokenizer, policy.asked))
    assert len(policy.ids) == 128 - prompt or policy.ended()
    with pytest.raises(chat.InputError, match="begin another"):
        chat.answer([policy], "a" * 70, sampling, 3, out)


def test_two_columns_fit_the_terminal_whatever_the_characters():
    out = io.StringIO()
    console = Console(file=out, width=70, force_terminal=True, color_system=None)
    texts = ["猫" * 40 + "\x1b[2J", "one\n" * 50 + "last [bold]"]
    console.print(chat.columns(["a", "b"], texts, console, rows=6))
    lines = out.getvalue().splitlines()
    assert all(console.measure(line).maximum <= 70 for line in lines) and len(lines) <= 10
    assert "last [bold]" in out.getvalue() and r"\x1b[2J" in out.getvalue(), "and no text is markup"


def saved(path, *rows):
    files.write_jsonl(path, rows)
    return str(path)


def test_what_cannot_be_answered_is_refused_in_one_sentence(policies, say, tmp_path):
    reward = make_model(tmp_path / "reward", architecture="LlamaForSequenceClassification")
    bare = make_model(tmp_path / "bare", make_tokenizer(template=None))
    talk = {"model": policies[0], "messages": [{"role": "system", "content": "Hi."}]}
    file = saved(tmp_path / "talk.jsonl", talk)
    short = make_model(tmp_path / "short")
    weights = (short / "model.safetensors").read_bytes()
    (short / "model.safetensors").write_bytes(weights[:-9])
    for words, text, reason in (
        ([str(tmp_path / "none")], "hi", "there is no directory"),
        (["README.md"], "hi", "not a directory"),
        ([str(reward)], "hi", "scores texts and answers none"),
        ([str(bare)], "hi", "no chat template"),
        ([str(short)], "hi", "model.safetensors is not a complete safetensors file .*; make or fetch"),
        ([policies[0]], " \n", "nothing was piped in"),
        ([policies[1], "--save", file], "hi", "is a conversation with .*a; name the same"),
        ([policies[0], "--save", file, "--system", "Ho."], "hi", "another system message"),
        ([policies[0], "--save", saved(tmp_path / "other.jsonl", {"a": 1})], "hi", "line 1: no conversation"),
        ([policies[0], "--save", str(tmp_path)], "hi", "is not a file"),
        ([policies[0], "--save", "/proc/talk.jsonl"], "hi", "talk.jsonl cannot be written"),
        ([policies[0], "--save", f"{file}/talk.jsonl"], "hi", "talk.jsonl cannot be written"),
        ([policies[0], "--configfile", "mine.yaml"], "hi", "--configfile: there is no file"),
    ):
        with pytest.raises(chat.InputError, match=reason):
            say(text, *words)


@pytest.mark.slow
def test_somebody_types(policies):
    """On a terminal: an answer, Ctrl-C in the next, Ctrl-C on an empty line, Ctrl-D."""
    leader, follower = pty.openpty()
    words = [sys.executable, "-m", "tools.chat", *policies[:1], *SAMPLING, "--max-tokens", "90"]
    process = subprocess.Popen(
        words,
        stdin=follower,
        stdout=follower,
        stderr=follower,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),  # pytest may ignore it
    )
    os.close(follower)
    seen = b""

    def until(wanted, press=lambda: None, seconds=240):
        nonlocal seen
        deadline = time.monotonic() + seconds
        while wanted not in seen:
            assert time.monotonic() < deadline, seen
            press()
            if select.select([leader], [], [], 10)[0]:  # a second Ctrl-C too soon would end the chat
                seen += os.read(leader, 4096)
        seen = seen[seen.index(wanted) + len(wanted) :]

    try:
        until(b"> ")
        os.write(leader, b"the cat\\\nsat\n")
        until(b"> ")
        # Python's readline leaves a signal that comes just before it waits for a key until the next one.
        until(b"Ctrl-D ends", press=lambda: process.send_signal(signal.SIGINT))
        until(b"> ")
        os.write(leader, b"\x04")
        assert process.wait(60) == 0 and b"Traceback" not in seen
    finally:
        process.kill()
        process.wait()
        os.close(leader)
