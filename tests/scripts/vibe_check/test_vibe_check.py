"""The vibe check's page shows what was said, whatever it was."""

import json

import pytest
from small_model import ENGINE

from prefline.errors import InputError
from scripts.vibe_check import answer_vibe_check, write_vibe_check


def page(tmp_path, answers, policies=("sft", "dpo-1")):
    """The page of `answers`: {policy: rows}."""
    paths = []
    for policy in policies:
        paths.append(str(tmp_path / f"{policy}.jsonl"))
        (tmp_path / f"{policy}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in answers[policy]))
    out = tmp_path / "vibe_check.md"
    write_vibe_check.main(["--policies", *policies, "--answers", *paths, "--out", str(out)])
    return out.read_text()


def row(prompt, answer, finish_reason="stop"):
    return {
        "messages": [{"role": "user", "content": prompt}],
        "answer": answer,
        "finish_reason": finish_reason,
    }


def test_answers_stand_side_by_side_under_their_prompt(tmp_path):
    text = page(
        tmp_path,
        {
            "sft": [row("Name a fox.", "Well, it | depends", "length"), row("Sing.", "")],
            "dpo-1": [row("Name a fox.", "- Bram\n  - Pip"), row("Sing.", "<b>*la*</b>")],
        },
    )
    assert text.startswith("# Vibe check")
    first, second = text.split("## ")[1:]
    assert "> **user**: Name a fox." in first
    assert "| **sft** | Well, it \\| depends … |" in first
    assert "| **dpo-1** | - Bram<br>&nbsp;&nbsp;- Pip |" in first
    assert "| **sft** | *(says nothing)* |" in second
    assert "| **dpo-1** | &lt;b&gt;\\*la\\*&lt;/b&gt; |" in second


def test_every_table_row_is_one_line(tmp_path):
    nasty = "a\r\n|b|\n\n# c\u2028d `e` ~~f~~ [g](h) \\ $i$ __j__"
    text = page(tmp_path, {"sft": [row(nasty, nasty)], "dpo-1": [row(nasty, nasty)]})
    lines = [line for line in text.splitlines() if line.startswith("|")]
    assert len(lines) == 4
    assert len({line.replace("\\|", "").count("|") for line in lines}) == 1
    assert sum(line.startswith("#") for line in text.splitlines()) == 2


def test_a_dialogue_shows_all_its_messages(tmp_path):
    dialogue = row("x", "Moo.")
    dialogue["messages"] = [
        {"role": "system", "content": "Be a cow."},
        {"role": "user", "content": "Hello"},
    ]
    text = page(tmp_path, {"sft": [dialogue], "dpo-1": [dialogue]})
    assert "> **system**: Be a cow.\n>\n> **user**: Hello\n\n|" in text


def test_policies_that_answered_other_prompts_are_an_error(tmp_path):
    with pytest.raises(InputError, match=r"dpo-1\.jsonl: answers other prompts than .*sft\.jsonl"):
        page(tmp_path, {"sft": [row("a", "b")], "dpo-1": [row("c", "b")]})


def test_a_prompt_without_a_system_message_gets_the_one_of_the_config(tmp_path, monkeypatch):
    asked = []

    def answer(load_engine, kept, dialogues, draws, sampling, section):
        asked.extend(dialogues)
        return [("Moo.", "stop")] * len(dialogues)

    monkeypatch.setattr(answer_vibe_check.answers, "answer", answer)
    monkeypatch.setattr(answer_vibe_check.answers, "open_journal", lambda *_: None)
    own = [{"role": "system", "content": "Be a cow."}, {"role": "user", "content": "Hello"}]
    prompts, out = tmp_path / "prompts.jsonl", tmp_path / "out.jsonl"
    prompts.write_text("".join(json.dumps({"prompt": prompt}) + "\n" for prompt in ("Name a fox.", own)))
    arguments = {
        **ENGINE,
        "prompts": prompts,
        "columns": '{"prompt": "prompt"}',
        "system": "Be brief.",
        "model": "sft",
        "temperature": 0.7,
        "top-p": 1.0,
        "top-k": 0,
        "max-tokens": 8,
        "seed": 1,
        "journal": tmp_path / "journal",
        "out": out,
    }
    answer_vibe_check.main([word for key, value in arguments.items() for word in (f"--{key}", str(value))])
    given = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Name a fox."}]
    assert asked == [given, own]
    assert [json.loads(line)["messages"] for line in out.read_text().splitlines()] == asked
