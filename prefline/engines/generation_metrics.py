"""Report the progress of a shard's generation to the log, and its metrics to a file."""

import resource
import sys
import time
from collections import Counter
from pathlib import Path

import psutil

from prefline.machine.durations import clock

# Seconds between two lines of progress.
INTERVAL = 10.0


class Progress:
    """Counts completions as they end, and prints a line now and then.

    wanted: {prompt: number of completions that it will get}.
    """

    def __init__(self, wanted):
        self.left, self.prompts, self.total = Counter(wanted), len(wanted), sum(wanted.values())
        self.completions = self.tokens = 0
        self.began = self.printed = time.monotonic()

    @property
    def seconds(self):
        return time.monotonic() - self.began

    def add(self, prompt, tokens):
        """Count a finished completion of `prompt` with that many tokens."""
        self.left[prompt] -= 1
        if not self.left[prompt]:
            del self.left[prompt]
        self.completions += 1
        self.tokens += tokens
        if self.completions == self.total or time.monotonic() > self.printed + INTERVAL:
            self.printed = time.monotonic()
            print(self.line(), flush=True)

    def line(self):
        """Return the progress, such as "120 of 448 prompts, 9120 tokens, 2210 tokens/s, 0:00:11 left"."""
        left = self.seconds * (self.total - self.completions) / max(self.completions, 1)
        return (
            f"{self.prompts - len(self.left)} of {self.prompts} prompts, {self.tokens} tokens, "
            f"{self.tokens / max(self.seconds, 1e-9):.0f} tokens/s, {clock(left)} left"
        )


def of_shard(prompts, rows):
    """Return counts (dict) of a shard's artifacts, whether made now or found in the journal."""
    return {
        "prompts": len(prompts),
        "completions": len(rows),
        "tokens_in": sum(len(row["prompt_ids"]) for row in prompts),
        "tokens_out": sum(len(row["completion_ids"]) for row in rows),
        "finish_reasons": dict(Counter(row["finish_reason"] for row in rows)),
        "given_up": sorted({row["prompt_id"] for row in rows if row["finish_reason"] == "error"}),
    }


def of_run(engine, progress):
    """Return the engine's times in seconds and memory in MB (dict) for the rows that were missing."""
    return {
        "made": progress.completions,
        "seconds": round(progress.seconds, 3),
        "tokens_per_second": round(progress.tokens / max(progress.seconds, 1e-9), 1),
        "engine_start_seconds": round(engine.start_seconds, 3),
        "peak_memory": peak_memory(),
        "gpu_memory": gpu_memory(),
        **engine.report(),
    }


def peak_memory():
    """Return the sum (int, MB) of the peak memory of this process and of its running child processes."""
    unit = 1 if sys.platform == "darwin" else 1024
    total = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    for child in psutil.Process().children(recursive=True):
        try:
            status = Path(f"/proc/{child.pid}/status").read_text()
            total += int(status.split("VmHWM:")[1].split()[0]) * 1024
        except (OSError, IndexError):
            continue  # ended, or a system without /proc
    return total // 2**20


def gpu_memory():
    """Return the memory (int, MB) in use on this process's GPUs, with vLLM's reserve; None without GPUs."""
    import torch

    if not torch.cuda.is_available():
        return None
    taken = [torch.cuda.mem_get_info(device) for device in range(torch.cuda.device_count())]
    return sum(total - free for free, total in taken) // 2**20
