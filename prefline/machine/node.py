"""Read the config's section `machine`: the node that jobs run on, and the resources of single rules."""

import contextlib
import difflib
import re
import shutil
import subprocess
from dataclasses import dataclass

import jsonschema

from prefline.config import schema
from prefline.errors import InputError
from prefline.machine import gpus

GB = 10**9
# Resources of a scheduler, which any rule may have beside its own.
OF_SCHEDULERS = {
    "nodes",
    "mem_mb",
    "runtime",
    "gres",
    "gpu_model",
    "cpus_per_gpu",
    "cpus_per_task",
    "slurm_partition",
    "slurm_account",
    "constraint",
}
# Names in expressions of --set-resources.
VARIABLES = ("attempt", "threads", "input")
SECONDS_TO_ANSWER = 60


@dataclass(frozen=True)
class Node:
    """A node: its number of GPUs, the memory of one (GB as cards are sold), its own memory in bytes.

    None stands for what is not known. Without GPUs (0) jobs run on its CPUs.
    """

    gpus: int | None
    gpu_memory: float | None
    memory: float | None


def described(section, environment, allowed=None):
    """Return the Node of a config's section `machine` (dict); this machine's driver replaces nulls.

    environment: dict, as os.environ; allowed: int, the most GPUs that jobs may use in all; None: no limit.
    """
    here = gpus.installed(environment)
    number = section["gpus"]
    if number is None:
        number = len(here) or None
    if allowed is not None:
        number = allowed if number is None else min(number, allowed)
    memory = section["gpu_memory"]
    if memory is None and number:
        memory = smallest(here)
    return Node(number, memory, section["memory"] and section["memory"] * GB)


def smallest(names):
    """Return the memory (GB, as cards are sold) of the smallest of some GPUs of this machine.

    None if no driver tells. names: list of str, as gpus.installed gives them.
    """
    tool = shutil.which("nvidia-smi")
    if not names or tool is None:
        return None
    words = [tool, "--query-gpu=index,uuid,memory.total", "--format=csv,noheader,nounits"]
    told = ""
    with contextlib.suppress(OSError, subprocess.TimeoutExpired):
        told = subprocess.run(words, capture_output=True, text=True, timeout=SECONDS_TO_ANSWER).stdout
    found = []
    for line in told.splitlines():
        index, uuid, mebibytes = (word.strip() for word in (*line.split(","), "", "")[:3])
        if mebibytes.isdigit() and any(name == index or uuid.startswith(name) for name in names):
            found.append(round(int(mebibytes) / 1024, 1))
    return min(found, default=None)


def check(rules, known):
    """Raise InputError for a rule or a resource of `machine.rules` that the workflow does not have.

    rules: {rule: {resource: value}}; known: {rule: names of the resources that its jobs read}.
    """
    for rule, settings in rules.items():
        if rule not in known:
            near = difflib.get_close_matches(rule, known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else "docs/memory.md lists them"
            raise InputError(f"config: machine.rules has {rule!r}, which is no rule; {hint}")
        for name in settings or ():
            if name not in known[rule] and name not in OF_SCHEDULERS:
                own = ", ".join(sorted(known[rule] - OF_SCHEDULERS)) or "none"
                raise InputError(
                    f"config: machine.rules.{rule}.{name}: the rule does not use it; its own resources: {own}"
                )


def check_set(rules):
    """Raise InputError for a value that --set-resources or a profile gives to a resource of this project.

    rules: {rule: {resource: value}}; Snakemake checks schedulers' resources, and computes expressions.
    """
    known = schema.properties({"$ref": "#/$defs/rule_resources"})
    for rule, values in rules.items():
        for name, value in values.items():
            if name not in known or (name in OF_SCHEDULERS and name != "gres"):
                continue
            if isinstance(value, str) and (value in VARIABLES or not re.fullmatch(r"[\w:.]+", value)):
                continue
            given = {"true": True, "false": False}.get(value, value)
            for error in jsonschema.Draft202012Validator(known[name]).iter_errors(given):
                about = known[name]["description"]
                raise InputError(f"set-resources: {rule}:{name}={value}: {error.message} ({about})")


def settings(section):
    """Return the resources (dict) that `machine.rules` sets for a rule, as Snakemake takes them.

    section: dict of one rule, or None. Nulls are left out, and true and false are words.
    """
    found = {name: value for name, value in (section or {}).items() if value is not None}
    return {name: str(value).lower() if isinstance(value, bool) else value for name, value in found.items()}
