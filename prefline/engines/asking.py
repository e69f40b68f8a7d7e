"""Asking a language model until what it says can be read, each answer a row of the journal.

It is asked at temperature 0. An answer that cannot be read is asked for again at temperature 0.7, up to three
times, each with a seed of its own: at temperature 0 it would be the same. Then it has no value.
"""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from prefline import engines, seeds
from prefline.engines.model_files import ModelFiles
from prefline.errors import InputError
from prefline.provenance import journal
from prefline.servers.budget import OverBudget
from prefline.servers.conversation import Answer, Anthropic, Conversation, Request

# How warm the model is, from try to try.
TEMPERATURES = (0.0, 0.7, 0.7, 0.7)
# Answers of a first round from which on it is no bad luck if none of them can be read.
HOPELESS = 16
# Tokens that a server's chat template may write beyond those it writes here, such as today's date.
TEMPLATE_SLACK = 64
# Seconds between two lines of progress.
INTERVAL = 10.0
KINDS = {"openai": Conversation, "anthropic": Anthropic}


class Question(NamedTuple):
    """What a model is asked: messages (list of {"role", "content"}), and how to name that to people."""

    messages: list
    name: str


@dataclass(frozen=True)
class Settings:
    """What is asked, and what shapes its answers.

    model: its directory, where this machine has it; served_model: what servers call it, None for the
    directory's name; max_tokens: longest answer; seed: of the experiment.
    """

    model: str
    served_model: str | None
    dtype: str
    max_tokens: int
    seed: int

    @property
    def name(self):
        """What the servers call the model (str)."""
        return self.served_model or Path(self.model).name


class Servers:
    """The model behind servers, or behind one of the job's own: it is there from the first question on.

    settings: Settings; pace: pace.Pace; texts: list of str, all that it may be asked, which is what the
    context of its own server is made for; section: of the config, for messages; kind: of KINDS; client():
    further arguments of client.Client (dict), called before the first question is asked.
    """

    def __init__(self, settings, pace, texts, section, kind="openai", client=dict):
        self.settings, self.pace, self.texts = settings, pace, texts
        self.section, self.kind, self.client = section, kind, client
        self.local = self.conversation = None
        self.over_budget = False  # whether not even the first question could be asked

    def answers(self, wanted):
        """Yield {key: Answer} as they end, for {key: Request}, without those that the servers give up."""
        try:
            if self.conversation is None:
                self._open()
        except OverBudget:
            self.over_budget = True
            return
        keys, printed = list(wanted), time.monotonic()
        answers = self.conversation.answers(list(wanted.values()))
        for done, (index, answer) in enumerate(answers, 1):
            if answer is not None:
                yield {keys[index]: answer}
            if done == len(keys) or time.monotonic() > printed + INTERVAL:
                printed = time.monotonic()
                print(f"{done} of {len(keys)} verdicts", flush=True)

    def given_up(self):
        """(Request, exception) of what the servers gave up."""
        return [] if self.conversation is None else self.conversation.client.given_up

    def close(self):
        if self.conversation is not None:
            self.conversation.close()
        if self.local is not None:
            self.local.close()

    def _open(self):
        servers, client = self.pace.servers, self.client()
        if not servers:
            self.local = self._serve()
            servers, client["key"] = [self.local.url], self.local.key
        self.conversation = KINDS[self.kind](
            servers,
            self.settings.name,
            self.settings.max_tokens,
            self.pace.batch_size,
            self.pace.server_timeout,
            self.section,
            **client,
        )

    def _serve(self):
        from prefline.engines.local_server import serve

        settings, files = self.settings, ModelFiles(self.settings.model)
        vllm = self.pace.of_vllm() | limits(settings.max_tokens, files, self.texts)
        return serve(files, settings.name, self.pace.batch_size, settings.dtype, settings.seed, **vllm)


class Offline:
    """The model in this process, by vLLM: as Servers."""

    def __init__(self, settings, pace, texts):
        self.settings, self.pace, self.texts, self.engine = settings, pace, texts, None

    def answers(self, wanted):
        """Yield {key: Answer} as they end, for {key: Request} of one temperature."""
        from prefline.text import chat

        if self.engine is None:
            self._open()
        keys, asked = list(wanted), list(wanted.values())
        requests = [
            engines.Request(chat.prompt_ids(self.engine.tokenizer, one.messages), one.seed, one.name)
            for one in asked
        ]
        sampling = engines.Sampling(asked[0].temperature, 1.0, 0, self.settings.max_tokens)
        for index, made in self.engine.stream(requests, sampling):
            if made.finish_reason == "error":
                raise InputError(f"{asked[index].name}: the engine gives it up; see the lines above")
            text = self.engine.tokenizer.decode(made.ids, skip_special_tokens=True).strip()
            yield {
                keys[index]: Answer(text, made.finish_reason, len(requests[index].prompt_ids), len(made.ids))
            }

    def given_up(self):
        return []

    over_budget = False

    def close(self):
        if self.engine is not None:
            self.engine.close()

    def _open(self):
        settings = self.settings
        self.engine = engines.load(
            "vllm",
            settings.model,
            self.pace.batch_size,
            settings.dtype,
            seed_per="completion",
            seed=settings.seed,
            **self.pace.of_vllm(),
            **limits(settings.max_tokens, ModelFiles(settings.model), self.texts),
        )


def limits(max_tokens, files, texts):
    """vLLM's engine arguments (dict) for the model of `files` (ModelFiles), asked `texts` (list of str)."""
    from prefline.text import chat

    longest = max(map(len, files.tokenizer(texts, add_special_tokens=False)["input_ids"]))
    template = len(chat.prompt_ids(files.tokenizer, [{"role": "user", "content": "a"}]))
    return {
        # The model's own may be a hundred times this, more than the memory holds.
        "max_model_len": longest + template + TEMPLATE_SLACK + max_tokens,
        "quantization": None,
        "kv_cache_dtype": "auto",
        "enforce_eager": False,
    }


def requests(questions, number, seed):
    """{journal's key: Request} of the try `number` of `questions` ({id (str): Question}), in their order."""
    wanted = {}
    for name, question in questions.items():
        temperature, drawn = TEMPERATURES[number], seeds.derive(seed, "verdict", name, number)
        key = journal.key(name, temperature, drawn)
        wanted[key] = Request(question.messages, temperature, drawn, question.name)
    return wanted


def until_read(questions, read, ask, seed):
    """({id: value}, {id: why there is none}, {id: the last Answer}) for questions ({id (str): Question}).

    read(Answer): the value, or None if it cannot be read; ask({key: Request}): {key: Answer, as a list too},
    without those given up; seed: int, of the experiment.
    """
    values, reasons, answers, waiting = {}, {}, {}, dict(questions)
    for number in range(len(TEMPERATURES)):
        wanted = requests(waiting, number, seed)
        found, unread = ask(wanted), {}
        for name, key in zip(waiting, wanted, strict=True):
            if key not in found:
                reasons[name] = "given up by the server"
                continue
            answers[name] = answer = Answer(*found[key])
            value = read(answer)
            if value is None:
                reasons[name] = f"{answer.text[-80:]!r} ({answer.finish_reason})"
                unread[name] = questions[name]
            else:
                values[name] = value
        waiting = unread
        if not waiting or (not values and len(questions) >= HOPELESS):
            break
    return values, {name: reason for name, reason in reasons.items() if name not in values}, answers
