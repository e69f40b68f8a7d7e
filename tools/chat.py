"""Talk to a policy, or to two side by side; answers appear as they are made.

    python -m tools.chat results/models/dpo-1
    python -m tools.chat results/models/dpo-1 results/models/sft   asks both, and shows two columns
    python -m tools.chat results/models/dpo-1 --save talk.jsonl    saves the conversation, or resumes it
    echo "Hello" | python -m tools.chat results/models/dpo-1       answers what is piped in, and ends

Prompts, end tokens, sampling and reading of answers are the workflow's: a policy answers a prompt of the
vibe check as in results/vibe_check/. Each policy sees its own earlier answers, without their reasoning. The
system message and the sampling are those of `vibe_check` in the config; flags replace them.

A line is a message; a backslash at its end continues it. Ctrl-C stops an answer, which is kept as far as it
came. Ctrl-D ends. A piped text is one message.
"""

import itertools
import json
import sys
from pathlib import Path

from prefline import engines, errors, files, paths, seeds
from prefline.config import overlays, section
from prefline.engines import answers, policies
from prefline.errors import InputError
from prefline.printable import printable
from prefline.text import chat

SAMPLING = ("temperature", "top_p", "top_k", "max_tokens")
# Columns of a terminal that is too narrow for two answers.
NARROW = 60
# Frames a second of two columns.
FRAMES = 12
# Ends the text of ids that end within a character.
HALF = "\ufffd"
INTERRUPTED = 130
NO_UTF_8 = "the message is no UTF-8; convert it, for example with iconv -t utf-8"


class Policy:
    """A policy in memory, and its conversation.

    messages: list of {"role", "content"}, without the question that is being answered.
    """

    def __init__(self, path, dtype, messages):
        self.path, self.name, self.messages = str(path), Path(path).name, messages
        self.asked, self.ids = [], []
        policies.check(path)
        self.engine = engines.load("transformers", path, 1, dtype)
        self.tokenizer, self.ends = self.engine.tokenizer, self.engine.end_tokens

    def ask(self, question, sampling, seed):
        """Yield the answer to `question` so far (str) with each token, reasoning included.

        sampling: engines.Sampling; seed: int, of the conversation. Call `remember` at the end.
        """
        self.asked, self.ids = [*self.messages, {"role": "user", "content": question}], []
        prompt = answers.prompt_ids(self.tokenizer, self.asked)
        if prompt is None:
            raise InputError("the chat template refuses an earlier answer; begin another conversation")
        context = self.engine.files.context
        room = sampling.max_tokens if context is None else min(sampling.max_tokens, context - len(prompt))
        if room < 1:
            raise InputError(
                f"the conversation has {len(prompt)} tokens, and {self.name} reads {context}; begin another"
            )
        request = engines.Request(prompt, seeds.derive(seed, "vibe_check", json.dumps(self.asked)), self.name)
        shorter = engines.Sampling(sampling.temperature, sampling.top_p, sampling.top_k, room)
        for token in self.engine.tokens(request, shorter):
            self.ids.append(token)
            yield self.text().rstrip(HALF)

    def text(self):
        """Return what the policy has said to the last question (str), without the token that ends it."""
        return self.tokenizer.decode(self.ids[:-1] if self.ended() else self.ids)

    def ended(self):
        return bool(self.ids) and self.ids[-1] in self.ends

    def remember(self):
        """Add the question and its answer to the conversation; return whether there is an answer."""
        answer = (chat.said(self.tokenizer, self.ids).answer or "").strip()
        if answer:
            self.messages = [*self.asked, {"role": "assistant", "content": answer}]
        return bool(answer)


def settings(args):
    """Return the values (dict) of the config, replaced by those of `args`."""
    config = overlays.read(args.configfile)
    values = {key: config["vibe_check"][key] for key in ("system", *SAMPLING)}
    return values | {"dtype": config["generate"]["dtype"], "seed": config["seed"]} | vars(args)


def begin(models, system):
    """Return the messages (list) with which the conversation of each of `models` begins."""
    return [[{"role": "system", "content": system}] if system else [] for _ in models]


def resume(path, models, system):
    """Return the messages of each of `models` in the saved conversation `path`; InputError if it is another.

    system: str or None, of --system, which may not differ from the file's.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8").split("\n")
    except UnicodeDecodeError:
        raise InputError(f"{path}: no conversation of this program; name another") from None
    rows = []
    for number, line in enumerate(lines, 1):
        if not line:
            continue
        try:
            row = json.loads(line)
            # A conversation whose first answer was stopped before it began is empty.
            messages = chat.as_messages(row["messages"], f"{path}, line {number}") if row["messages"] else []
            rows.append((str(row["model"]), messages))
        except (json.JSONDecodeError, KeyError, TypeError):
            raise InputError(
                f"{path}, line {number}: no conversation of this program; name another"
            ) from None
    saved = [model for model, _ in rows]
    if [Path(model).resolve() for model in saved] != [Path(model).resolve() for model in models]:
        raise InputError(
            f"{path} is a conversation with {' and '.join(saved)}; name the same, or another file"
        )
    for _, messages in rows:
        first = messages[0]["content"] if messages and messages[0]["role"] == "system" else ""
        if system is not None and first != system:
            raise InputError(
                f"{path} begins with another system message; leave --system out, or name another file"
            )
    return [messages for _, messages in rows]


def check_place(path):
    """Raise InputError unless a conversation can be saved in the file `path`, which may not exist yet."""
    if Path(path).exists() and (wrong := paths.mistake(path, "file")):
        raise InputError(f"--save: {wrong}")
    try:
        with files.atomic(Path(path).with_name(f"{Path(path).name}.trial")) as trial:
            trial.touch()
    except OSError as error:
        raise InputError(f"--save: {path} cannot be written ({error.strerror}); name another file") from None
    Path(path).with_name(f"{Path(path).name}.trial").unlink()


def save(path, talking):
    """Write the conversations of `talking` (list of Policy) as rows that a training's data may have."""
    files.write_jsonl(path, [{"model": one.path, "messages": one.messages} for one in talking])


def show(texts, out):
    """Write an answer to `out` as it grows; texts: its states (iterable of str)."""
    shown = ""
    for text in texts:
        if not text.startswith(shown):  # a tokenizer that changes what it has decoded before
            out.write("\n")
            shown = ""
        out.write(printable(text[len(shown) :]))
        out.flush()
        shown = text
    return shown


def show_in_turn(talking, streams, out):
    """Write the answers of several policies one below the other, each under the policy's name."""
    for one, stream in zip(talking, streams, strict=True):
        out.write(f"{one.name}:\n")
        finish(one, show(stream, out), out)


def finish(one, shown, out):
    """Write the end of an answer of which `shown` (str) has been written."""
    rest = one.text()
    out.write(printable(rest[len(shown) :]) + "\n" if rest.startswith(shown) else "\n")
    out.flush()


def columns(names, texts, console, rows=None):
    """Return a table (rich) of the texts side by side; rows: show their last lines only, None for all."""
    from rich.table import Table
    from rich.text import Text

    table = Table(expand=True, pad_edge=False)
    width = (console.width - 3 * len(names) - 1) // len(names)
    for name in names:
        table.add_column(name, width=width)
    cells = []
    for text in texts:
        lines = Text(printable(text)).wrap(console, width)
        cells.append(Text("\n").join(lines[-rows:] if rows else lines))
    table.add_row(*cells)
    return table


def show_side_by_side(talking, streams, console):
    """Show the answers of two policies in two columns as they grow, a token of each in turn."""
    from rich.live import Live

    names, texts = [one.name for one in talking], [""] * len(talking)
    rows = max(1, console.height - 5)
    with Live(console=console, refresh_per_second=FRAMES, transient=True) as live:
        try:
            for states in itertools.zip_longest(*streams):
                texts = [text if state is None else state for state, text in zip(states, texts, strict=True)]
                live.update(columns(names, texts, console, rows))
        finally:
            live.update("")
    console.print(columns(names, [one.text() for one in talking], console))


def answer(talking, question, sampling, seed, out):
    """Have all policies answer, and show it; return whether Ctrl-C stopped them."""
    from rich.console import Console

    streams = [one.ask(question, sampling, seed) for one in talking]
    stopped, console = False, Console(file=out, highlight=False, markup=False)
    try:
        if len(talking) == 1:
            finish(talking[0], show(streams[0], out), out)
        elif console.is_terminal and console.width >= NARROW:
            show_side_by_side(talking, streams, console)
        else:
            show_in_turn(talking, streams, out)
    except KeyboardInterrupt:
        stopped = True
        out.write("\n")
    for one in talking:
        if not one.remember() and not stopped:
            note(f"{one.name} gave no answer; the question is left out of its conversation")
        elif not one.ended() and not stopped:
            note(f"{one.name} was cut off after {len(one.ids)} tokens; --max-tokens allows more")
    return stopped


def note(text):
    print(f"[{printable(text)}]", file=sys.stderr, flush=True)


def wrong_text(text):
    """Return a sentence about a text that is no UTF-8, or None; Python may have read it with surrogates."""
    return None if text.isascii() or text == text.encode(errors="replace").decode() else NO_UTF_8


def read_message():
    """Return the next message (str) that somebody types, None at the end; Ctrl-C empties the line."""
    lines, prompt = [], "> "
    while True:
        try:
            line = input(prompt)
        except KeyboardInterrupt:
            print(flush=True)
            note("Ctrl-D ends")
            lines, prompt = [], "> "
            continue
        except EOFError:
            print(flush=True)
            return None
        except UnicodeDecodeError:
            line = "\udcff"
        if wrong := wrong_text(line):
            note(wrong)
            lines, prompt = [], "> "
            continue
        lines.append(line.removesuffix("\\"))
        if line.endswith("\\"):
            prompt = ". "
            continue
        if text := "\n".join(lines).strip():
            return text
        lines, prompt = [], "> "


def converse(talking, sampling, seed, path, typed):
    """Answer messages until they end.

    path: of the saved conversation, or None; typed: whether somebody types them; otherwise all that is piped
    in is one.
    """
    if not typed:
        try:
            question = sys.stdin.read().strip()
        except UnicodeDecodeError:
            raise InputError(NO_UTF_8) from None
        if wrong := wrong_text(question):
            raise InputError(wrong)
        if not question:
            raise InputError("nothing was piped in; pipe a question, or type it on a terminal")
        stopped = answer(talking, question, sampling, seed, sys.stdout)
        if path:
            save(path, talking)
        if stopped:
            sys.exit(INTERRUPTED)
        return
    while (question := read_message()) is not None:
        try:
            answer(talking, question, sampling, seed, sys.stdout)
        except InputError as error:
            note(error.args[0])
            continue
        if path:
            save(path, talking)


def main(argv=None):
    parser = section.parser(__doc__)
    parser.add_argument("model", help="the policy's directory")
    parser.add_argument("other", nargs="?", help="the directory of a second policy, beside the first")
    parser.add_argument(
        "--save", metavar="FILE", help="conversation (jsonl): written, and resumed if it is there"
    )
    keys = ("system", *SAMPLING)
    section.add(parser, "vibe_check", *keys, optional=keys)
    section.add(parser, "generate", "dtype", optional=("dtype",))
    section.add(parser, "seed", optional=("seed",))
    overlays.add(parser)
    args = parser.parse_args(argv)

    try:
        import torch

        models = [one.rstrip("/") for one in (args.model, args.other) if one]
        values = settings(args)
        resumed = args.save and Path(args.save).exists() and Path(args.save).stat().st_size > 0
        if args.save:
            check_place(args.save)
        given = getattr(args, "system", None)
        begun = resume(args.save, models, given) if resumed else begin(models, values["system"])
        try:
            talking = [
                Policy(one, values["dtype"], messages) for one, messages in zip(models, begun, strict=True)
            ]
            for one in talking:  # a template may refuse a system message
                chat.prompt_ids(one.tokenizer, [*one.messages, {"role": "user", "content": "a"}])
            sampling = engines.Sampling(**{key: values[key] for key in SAMPLING})
            typed = sys.stdin.isatty()
            if typed:
                import readline  # noqa: F401  # input() then has a history, and takes pasted lines as one

                note("Ctrl-C stops an answer, Ctrl-D ends")
            if resumed:
                note(f"{args.save}: resumed after {len(begun[0])} messages")
            converse(talking, sampling, values["seed"], args.save, typed)
        except torch.OutOfMemoryError:
            raise InputError(
                "the GPU's memory is too small; add --dtype bfloat16, name one model, or set "
                "CUDA_VISIBLE_DEVICES= to use the CPU"
            ) from None
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)


if __name__ == "__main__":
    errors.run(main)
