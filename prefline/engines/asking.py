"""Asking a language model until what it says can be read, each answer a row of the journal.

It is asked at temperature 0. An answer that cannot be read is asked for again at temperature 0.7, up to three
times, each with a seed of its own: at temperature 0 it would be the same. Then it has no value.
"""

import time
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


class Servers:
    """The model behind servers, or behind one of the job's own: it is there from the first question on.

    args: the flags of engines.add_server_arguments, --model and --max-tokens; texts: list of str, all that it
    may be asked, which is what the context of its own server is made for; section: of the config, for
    messages; kind: of KINDS; client(): further arguments of client.Client (dict), called before the first
    question is asked.
    """

    def __init__(self, args, texts, section, kind="openai", client=dict):
        self.args, self.texts, self.section, self.kind, self.client = args, texts, section, kind, client
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
        args, servers, client = self.args, self.args.servers.split(), self.client()
        if not servers:
            self.local = self._serve()
            servers, client["key"] = [self.local.url], self.local.key
        self.conversation = KINDS[self.kind](
            servers,
            name_of(args),
            args.max_tokens,
            args.batch_size,
            args.server_timeout,
            self.section,
            **client,
        )

    def _serve(self):
        from prefline.engines.local_server import serve

        args, files = self.args, ModelFiles(self.args.model)
        return serve(
            files,
            name_of(args),
            args.batch_size,
            args.dtype,
            args.seed,
            tensor_parallel_size=args.tensor_parallel_size,
            gpu_memory_percent=args.gpu_memory_percent,
            max_num_batched_tokens=args.max_num_batched_tokens,
            **limits(args, files, self.texts),
        )


class Offline:
    """The model in this process, by vLLM: as Servers, with the same flags."""

    def __init__(self, args, texts):
        self.args, self.texts, self.engine = args, texts, None

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
        sampling = engines.Sampling(asked[0].temperature, 1.0, 0, self.args.max_tokens)
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
        args = self.args
        self.engine = engines.load(
            "vllm",
            args.model,
            args.batch_size,
            args.dtype,
            seed_per="completion",
            seed=args.seed,
            tensor_parallel_size=args.tensor_parallel_size,
            gpu_memory_percent=args.gpu_memory_percent,
            max_num_batched_tokens=args.max_num_batched_tokens,
            **limits(args, ModelFiles(args.model), self.texts),
        )


def limits(args, files, texts):
    """vLLM's engine arguments (dict) for a model that is asked `texts` (list of str)."""
    from prefline.text import chat

    longest = max(map(len, files.tokenizer(texts, add_special_tokens=False)["input_ids"]))
    template = len(chat.prompt_ids(files.tokenizer, [{"role": "user", "content": "a"}]))
    return {
        # The model's own may be a hundred times this, more than the memory holds.
        "max_model_len": longest + template + TEMPLATE_SLACK + args.max_tokens,
        "quantization": None,
        "kv_cache_dtype": "auto",
        "enforce_eager": False,
    }


def name_of(args):
    """What the servers call the model (str)."""
    return args.served_model or Path(args.model).name


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
