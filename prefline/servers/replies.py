"""Tell what a server's reply is: an answer, a failure that may pass, a refused request, or the job's end.

Servers say the same thing in many ways: an empty account is a status 402, a 429 with "insufficient_quota", a
400 with "credit balance", or a 200 with an error object. The provider's words are in every message.
"""

import base64
import email.utils
import html
import json
import re
import time
from urllib.parse import quote

from prefline.errors import InputError
from prefline.unicode import is_valid, valid

LONGEST_RETRY_AFTER = 600.0
# Reasons for an answer's end, by the words of servers, in lower case.
STOP = {"stop", "eos", "eos_token", "end_turn", "stop_sequence", "complete", "tool_calls", "function_call"}
LENGTH = {"length", "max_tokens", "max_output_tokens", "model_length", "model_context_window_exceeded"}
FILTERED = {
    "content_filter",
    "refusal",
    "safety",
    "recitation",
    "blocklist",
    "prohibited_content",
    "sensitive",
}
# An answer that the server did not finish; to ask again favours no answer.
UNFINISHED = {"abort", "aborted", "cancelled", "error", "insufficient_system_resource", "network_error"}
REASONS = {name: reason for names, reason in ((STOP, "stop"), (LENGTH, "length")) for name in names}
REASONS |= dict.fromkeys(FILTERED, "content_filter")
# The account's state, in a message and in an error's code; the second also in a refusal of one request, whose
# message may quote the prompt.
ACCOUNT = re.compile(
    r"insufficient[ _-]?(quota|funds?|balance|credits?)|credit balance|(exceeded|over) your (current )?quota|"
    r"billing|(out of|not enough|no|more|add) credits?\b|payment required|spend(ing)? limit|arrear|overdue|"
    r"add funds|account (is |has been )?(suspended|deactivated)",
    re.IGNORECASE,
)
CERTAIN = re.compile(
    r"insufficient[ _-]?(quota|balance|credits?)|credit balance is too low|arrearage|billing_", re.IGNORECASE
)
# A rate limit in words of an empty account passes.
PASSES = re.compile(r"retry[ _-]?(delay|in|after)|try again in|per[ _-](minute|second|hour)", re.IGNORECASE)
BUSY = re.compile(r"overloaded|rate.?limit|too many requests|unavailable|timed? ?out|server.?error", re.I)
FLAGGED = re.compile(r"flagged|moderation|content.(policy|filter)|safety", re.IGNORECASE)
# A field of a request that a server does not take, which some call a 404.
FIELD = re.compile(r"parameter|argument|field|not support|seed|temperature|max_(completion_)?tokens", re.I)
SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")


class Transient(Exception):
    """A failure that may pass; its text names the server and the failure."""


class Lost(Transient):
    """No readable answer to a request that the server may have worked on, and charge for."""


class Refused(Exception):
    """The server does not take this request (such as status 400 or 422); its text is what it said."""


class Missing(InputError):
    """The server has no such model, or not what is at the address."""


def body_of(response):
    """Return the JSON of a response, its text valid Unicode; Lost if it is no JSON object."""
    try:
        body = parsed(response)
    except (ValueError, RecursionError):
        raise Lost(f"an answer that is no JSON: {' '.join(response.text.split())[:300]}") from None
    if not isinstance(body, dict):
        raise Lost(f"an answer that is no object: {json.dumps(body)[:300]}")
    return body


def parsed(response):
    """Return the JSON of a response; its text is valid Unicode, and a number that JSON lacks is None."""
    body = json.loads(response.content.decode("utf-8", "replace"), parse_constant=lambda _: None)
    return valid(body) if SURROGATE.search(response.content) else body


def is_repaired(response):
    """Return whether `parsed` replaces something in the text of a response that is JSON."""
    text = response.content.decode("utf-8", "surrogateescape")
    return not is_valid(json.loads(text) if SURROGATE.search(response.content) else text)


def said(response, key=None):
    """Return a server's message on a failure, in one line and without the key (str), which some repeat."""
    try:
        body = parsed(response)
        body = (body.get("error") or body) if isinstance(body, dict) else body
        text = (body.get("message") or _details(body) or body) if isinstance(body, dict) else body
        text = text if isinstance(text, str) else json.dumps(text, ensure_ascii=False)
    except (ValueError, RecursionError):
        text = response.text
    return masked(" ".join(text.split()), key)[:300]


def _details(body):
    """Return the places and messages (str) of FastAPI's `detail`, without the request that it repeats."""
    details = body.get("detail")
    if not isinstance(details, list) or not all(isinstance(one, dict) for one in details):
        return details if isinstance(details, str) else None
    places = [".".join(map(str, one.get("loc") or ())) for one in details]
    return "; ".join(f"{place}: {one.get('msg')}" for place, one in zip(places, details, strict=True))


def masked(text, key):
    """Return `text` (str) with *** for a key (str or None) in any usual encoding."""
    if key:
        written = {key, quote(key, safe=""), json.dumps(key)[1:-1], html.escape(key), repr(key)[1:-1]}
        written |= {base64.b64encode(key.encode()).decode(), base64.urlsafe_b64encode(key.encode()).decode()}
        for one in sorted(written, key=len, reverse=True):
            text = text.replace(one, "***")
    return text


def failure_of(response, where, words, wrong_key):
    """Return the exception that a response stands for; None of an answer.

    where: the address, for messages; words: of `said`; wrong_key: str, what to tell of a refused key.
    """
    status, error = response.status_code, error_of(response)
    if status == 200 and error is None:
        return None
    codes = [error.get(name) for name in ("code", "type", "status")] if isinstance(error, dict) else []
    told = f"status {status}"
    if status == 200:
        numbers = [int(code) for code in codes if str(code).isdigit() and 400 <= int(code) < 600]
        status = numbers[0] if numbers else 200
        told = f"status 200 with an error{f' {status}' if numbers else ''}"
    told = f"{where}: {told}, {words}"
    known = " ".join([*(code for code in codes if isinstance(code, str)), words])
    refusal = status in (400, 404, 413, 422)
    passes = status in (429, 503) and ("Retry-After" in response.headers or PASSES.search(known))
    if status == 402 or (not passes and (CERTAIN if refusal else ACCOUNT).search(known)):
        return InputError(
            f"{told}: the account or its budget there is used up; finished answers are cached, so settle it "
            "and start again"
        )
    if status == 403 and FLAGGED.search(known):
        return Refused(told)
    if status in (401, 403):
        return InputError(f"{where}: {wrong_key.format(status=response.status_code)}; it says: {words}")
    if status in (404, 405, 410) and not FIELD.search(words):
        return Missing(
            f"{told}: the server has no such model or address; correct `model` or `urls` of the endpoint, or "
            "wait until it serves the model; finished answers are cached"
        )
    if 300 <= status < 400:
        return InputError(
            f"{told}: the server sends requests elsewhere, to {response.headers.get('Location')}; "
            "write that address in `urls` if you trust it"
        )
    if status in (408, 409, 425, 429) or (status >= 500 and status != 501):
        return Transient(told)
    if status == 200:
        return (Transient if BUSY.search(known) else Lost)(told)
    return Refused(told)


def error_of(response):
    """Return the error (dict or str) in the JSON of a response; None without one."""
    try:
        body = parsed(response)
    except (ValueError, RecursionError):
        return None
    if not isinstance(body, dict):
        return None
    if body.get("type") == "error" or not (body.get("choices") or body.get("content")):
        return body.get("error") or None
    return None


def finish_reason(reason, has_text):
    """Return "stop", "length" or "content_filter" for a server's word; null with a text is "stop".

    Raises Lost for an answer that has not ended, InputError for a word that is not known: to sample
    a complete answer again would favour those that end otherwise.
    """
    if reason is None and has_text:
        return "stop"
    if isinstance(reason, str) and (found := REASONS.get(reason.strip().lower())):
        return found
    if reason in (None, "") or (isinstance(reason, str) and reason.strip().lower() in UNFINISHED):
        raise Lost(f"an answer with the finish_reason {reason!r}")
    raise InputError(
        f"the server ends an answer with the finish_reason {reason!r}, which is not known: is the answer "
        f"complete? Known are: {', '.join(sorted(REASONS))}"
    )


def only_choice(body):
    """Return the one choice (dict) of an answer, with a known finish_reason; raises as `finish_reason`."""
    choices = body.get("choices")
    if not isinstance(choices, list) or len(choices) != 1 or not isinstance(choices[0], dict):
        found = len(choices) if isinstance(choices, list) else "no"
        raise Lost(f"an answer with {found} choices where one was asked for")
    choice = choices[0]
    if isinstance(error := choice.get("error"), dict):
        raise Lost(f"an answer with an error, {error.get('message') or json.dumps(error)}"[:300])
    message = choice.get("message")
    has_text = bool(choice.get("text") or (isinstance(message, dict) and message.get("content")))
    return choice | {"finish_reason": finish_reason(choice.get("finish_reason"), has_text)}


def text_of(content):
    """Return the text (str) of a message's content: a str, None, or a list of parts; Lost for others.

    Parts that are no text, such as reasoning, are left out.
    """
    if content is None or isinstance(content, str):
        return content or ""
    if not isinstance(content, list):
        raise Lost("an answer without text")
    texts = []
    for part in content:
        kind = part.get("type", "text") if isinstance(part, dict) else "text"
        text = part.get("text") if isinstance(part, dict) else part
        if kind in ("text", "output_text"):
            texts.append(text)
    if not all(isinstance(text, str) for text in texts):
        raise Lost("an answer without text")
    return "".join(texts)


def model_names(body, *keys):
    """Return the names (set of str) in the JSON of /models, in any of its forms; empty if it has none.

    keys: of a model's entry, none for those of its names.
    """
    listed = body
    if isinstance(body, dict):
        listed = body.get("data") or body.get("models")
    names = set()
    for entry in listed if isinstance(listed, list) else ():
        if isinstance(entry, dict):
            found = [entry.get(key) for key in keys or ("id", "name", "model")]
        else:
            found = [] if keys else [entry]
        names |= {name for name in found if isinstance(name, str)}
    return names


def retry_after(value, now=None):
    """Return the seconds (float) that a Retry-After header (number or date) asks for; 0 for anything else.

    now: seconds since the epoch, for a date; None is the present.
    """
    if value is None:
        return 0.0
    try:
        seconds = float(value)
    except ValueError:
        try:
            date = email.utils.parsedate_to_datetime(value).timestamp()
        except ValueError:
            return 0.0
        seconds = date - (time.time() if now is None else now)
    return min(max(seconds, 0.0), LONGEST_RETRY_AFTER) if seconds == seconds else 0.0
