"""Limits of time and memory for chat templates, which come with models and are programs.

A template runs in jinja's sandbox, which keeps it from files and from Python, but not from computing for
ever. `mistake` tries one in another process, which the kernel ends; `fetch_model` asks it of every template.
`limited` ends a loop that only some messages start.
"""

import contextlib
import os
import resource
import signal
import sys
import threading
import time

SECONDS = 10  # of computing; published templates take milliseconds
MEMORY = 2**30  # bytes, beyond what the process has
LONGEST = 10**7  # characters of a short dialogue
USER, ANSWER = {"role": "user", "content": "question"}, {"role": "assistant", "content": "answer"}
SYSTEM = {"role": "system", "content": "instruction"}
DIALOGUES = ([USER], [USER, ANSWER], [SYSTEM, USER], [SYSTEM, USER, ANSWER, USER], [USER, ANSWER] * 20)
TOOLS = [{"type": "function", "function": {"name": "f", "description": "d", "parameters": {}}}]


class TooLong(Exception):
    """A template has computed for longer than SECONDS."""


@contextlib.contextmanager
def limited():
    """Raise TooLong in the code within once this thread has computed for SECONDS; in the main thread only."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    end = time.thread_time() + SECONDS

    def check(*_):
        if time.thread_time() > end:
            raise TooLong
        signal.setitimer(signal.ITIMER_REAL, SECONDS)  # the machine was busy with others

    before = signal.signal(signal.SIGALRM, check)
    waiting, _ = signal.setitimer(signal.ITIMER_REAL, SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, waiting)
        signal.signal(signal.SIGALRM, before)


def mistake(template):
    """Return what is wrong (str) with a chat template (str) that exceeds the limits, None if it does not.

    One that fails in another way has no mistake here: perhaps nothing renders it.
    """
    # Imported here, so that the child need not.
    from transformers.utils import chat_template_utils

    sys.stdout.flush()
    sys.stderr.flush()
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        said = "needs more than 1 GiB of memory"
        try:
            _limit_process()
            said = _tried(chat_template_utils.render_jinja_template, template)
        except MemoryError:
            pass
        except BaseException:
            said = ""
        finally:
            os.write(writing, said.encode())
            os._exit(0)
    os.close(writing)
    with open(reading, "rb") as pipe:
        said = pipe.read().decode()
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if status == -signal.SIGXCPU:
        return f"computes for more than {SECONDS} s"
    return said or (None if status == 0 else f"ends its process (status {status})")


def _limit_process():
    signal.signal(signal.SIGXCPU, signal.SIG_DFL)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS + 1))
    with contextlib.suppress(OSError, ValueError):  # only Linux says how much there is
        with open("/proc/self/statm", encoding="ascii") as file:
            size = int(file.read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (size + MEMORY, size + MEMORY))


def _tried(render, template):
    """Return what is wrong (str) with what a template writes for short dialogues; "" if nothing is."""
    for parts in (False, True):
        for messages in DIALOGUES:
            if parts:
                messages = [one | {"content": [{"type": "text", "text": one["content"]}]} for one in messages]
            for begin, tools in ((False, None), (True, None), (True, TOOLS)):
                try:
                    texts, _ = render(
                        [messages],
                        tools=tools,
                        chat_template=template,
                        add_generation_prompt=begin,
                        bos_token="<s>",
                        eos_token="</s>",
                        strftime_now=str,
                    )
                except Exception as error:
                    if isinstance(error, MemoryError):
                        raise
                    continue
                if len(texts[0]) > LONGEST:
                    return f"writes {len(texts[0])} characters for a short dialogue"
    return ""
