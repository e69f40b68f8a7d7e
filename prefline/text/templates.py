"""Write settings into a chat template, so that every program renders it in the same way.

A setting is a line of jinja before the template. So it travels with the model, through trainings, to vLLM's
server, lm-eval and the hub, and counts in the model's hash.
"""

import calendar
import datetime
import json
import re
from pathlib import Path

from prefline import files, unicode
from prefline.errors import InputError

CLOCK = "strftime_now"
CONFIG = "tokenizer_config.json"
MARK = "\ufeff"  # which some editors write before a text; a template would begin every prompt with it
# Variables of every rendering, which no setting may replace.
RENDERED = {"messages", "add_generation_prompt", "raise_exception", CLOCK}
# Tags that programs which render chat templates know, beside jinja's.
GENERATION = re.compile(r"\{%[-+]?\s*(?:end)?generation\s*[-+]?%\}")
# A directive of a date's format, such as %d, %-d and %Ey.
DIRECTIVE = re.compile(r"(?<!\{)%[-_0^#]*[EO]?[a-zA-Z]")
# Jinja that puts the system message at the beginning of the user's first turn.
FIRST_USER = (
    "{%- if messages[1:] and messages[0]['role'] == 'system' and messages[1]['role'] == 'user' %}"
    "{%- set between = '\n\n' if messages[0]['content'] is string else [{'type': 'text', 'text': '\n\n'}] %}"
    "{%- set messages = [{'role': 'user', 'content': messages[0]['content'] + between + "
    "messages[1]['content']}] + messages[2:] %}{%- endif %}"
)


def has_clock(*paths):
    """Return whether a chat template in the files or model directories `paths` may write today's date."""
    found = [Path(path) / name for path in paths for name in ("", "chat_template.jinja", CONFIG)]
    texts = (path.read_text(encoding="utf-8", errors="replace") for path in found if path.is_file())
    return any(map(_asks_for_time, texts))


def _asks_for_time(template):
    return CLOCK in template and f"macro {CLOCK}" not in template


def settled(template, date, template_kwargs=None, system_message="own"):
    """Return a chat template (str) that depends only on messages.

    date: str, YYYY-MM-DD, instead of today's, or None; template_kwargs: dict or None, variables of the
    template, such as enable_thinking; system_message: "own" keeps it a message, "first_user" puts it at the
    beginning of the user's first turn. Raises InputError for variables that the template does not have.
    """
    before = FIRST_USER if system_message == "first_user" else ""
    variables = _variables(template) if template_kwargs else ()
    for name, value in (template_kwargs or {}).items():
        if name not in variables:
            raise InputError(
                f"chat_template_kwargs: the chat template has no variable {name!r} that a setting may give; "
                "correct or remove it"
            )
        before += f"{{%- set {name} = {_literal(value)} %}}"
    if _asks_for_time(template) and date is not None:
        before += _clock(date, before + template)
    return before + template


def _variables(template):
    """Return the names (set of str) of the variables that a chat template expects a setting to give."""
    import jinja2
    import jinja2.meta

    known = jinja2.Environment(extensions=["jinja2.ext.loopcontrols"])
    try:
        return jinja2.meta.find_undeclared_variables(known.parse(GENERATION.sub("", template))) - RENDERED
    except jinja2.TemplateError as error:
        raise InputError(f"chat_template_kwargs: the chat template cannot be read: {error}") from None


def settle(directory, date, chat_template_kwargs, system_message, reasoning_markers):
    """Write settings into the chat template of the model in `directory`; return those that apply (dict).

    date, chat_template_kwargs, system_message: see `settled`; reasoning_markers: [opening, closing] between
    which the model reasons, or None.
    """
    directory = Path(directory)
    path, config_path = directory / "chat_template.jinja", directory / CONFIG
    config = files.read_json(config_path) if config_path.is_file() else {}
    template = _text(path) if path.is_file() else _default(config.get("chat_template"))
    if template and not unicode.is_valid(template):
        raise InputError(f"its chat template {unicode.FAULT}; correct it")
    written, template = template, template and template.removeprefix(MARK)
    wanted = {
        "date": date if template and _asks_for_time(template) else None,
        "chat_template_kwargs": chat_template_kwargs,
        "system_message": None if system_message == "own" else system_message,
        "reasoning_markers": reasoning_markers,
    }
    wanted = {key: value for key, value in wanted.items() if value}
    if template is None:
        if wanted:
            raise InputError(f"{', '.join(wanted)}: the model has no chat template; set chat_template, too")
        return {}
    if date is None and _asks_for_time(template):
        raise InputError("the chat template writes today's date; set `date` in the config")
    made = settled(template, date, chat_template_kwargs, system_message)
    if made != written:
        files.write_text(path, made)
    if reasoning_markers:
        files.write_json(config_path, config | {"reasoning_markers": reasoning_markers})
    return wanted


def of_model(directory):
    """Return the chat templates (list of str) in a model directory, those with names included."""
    path, config = Path(directory, "chat_template.jinja"), Path(directory, CONFIG)
    named = files.read_json(config).get("chat_template") if config.is_file() else None
    texts = [each["template"] for each in named] if isinstance(named, list) else [named]
    return [*([_text(path)] if path.is_file() else []), *filter(None, texts)]


def _text(path):
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise InputError(f"its {path.name} {unicode.FAULT}; save it as UTF-8") from None


def _default(templates):
    """Return the template (str or None) of a tokenizer_config.json that has one, or several by name."""
    if isinstance(templates, list):
        return next((each["template"] for each in templates if each["name"] == "default"), None)
    return templates


def _literal(value):
    """Return a JSON value as jinja writes it."""
    if value is None:
        return "none"
    if isinstance(value, list):
        return "[" + ", ".join(map(_literal, value)) + "]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_literal(key)}: {_literal(each)}" for key, each in value.items()) + "}"
    # jinja does not join the two halves that JSON's escapes make of some characters, such as emoji.
    return json.dumps(value, ensure_ascii=False)


def _clock(date, template):
    """Return the line that makes strftime_now return `date`, at midnight, in formats of `template` (str)."""
    try:
        day = datetime.datetime.fromisoformat(f"{date}T00:00:00")
    except ValueError:
        raise InputError(f"date: {date!r} is not a day; write it as YYYY-MM-DD") from None
    found = sorted(set(DIRECTIVE.findall(template)), key=lambda name: (-len(name), name))
    directives = {name: day.strftime(name) for name in found}
    if "%s" in directives:  # strftime's has the machine's time zone
        directives["%s"] = str(calendar.timegm(day.timetuple()))
    directives = {"%%": "\x00"} | directives | {"\x00": "%"}
    replaced = "".join(f".replace({_literal(name)}, {_literal(value)})" for name, value in directives.items())
    return f"{{%- macro strftime_now(format) %}}{{{{ format{replaced} }}}}{{%- endmacro %}}"
