"""After random edits, a run ends as one from nothing would, and runs no job that it need not.

    pytest -m long tests/workflow/test_random_edits.py -n 0 -s --edits 100 --edits-seed 1

The oracle is a copy of the config, data and code, without results/, work/ and .snakemake/, in which all is
made anew. tests/helpers/random_edits.py has the kinds of edits.
"""

import hashlib
import os
import random
import re
import shlex
import shutil
import sys
import time
from collections import Counter
from pathlib import Path

import dry_runs
import forked_jobs
import pytest
import random_edits
import small_model
from project_copy import copy_project

ARGUMENTS = ["--configfile", "mine/config.yaml"]
# Lines of JSON that differ between two runs: durations, speeds, memory, rows that were not in the journal.
# A job that makes no row leaves them out, and the line before is then the last, without a comma.
MEASURED = re.compile(rb'\n *"(?:[^"]*(?:seconds|runtime|per_second|memory)[^"]*|made)":.*|,(?=\n)')


@pytest.fixture(scope="module")
def path():
    """A PATH whose jobs are forked."""
    return f"{forked_jobs.start()}:{Path(sys.executable).parent}:{os.environ['PATH']}"


def _link(name):
    """The link to the fetched model of a file; without it, nothing reads the file."""
    return Path("results/models", Path(name).parts[2])


class Project:
    """A project that is edited and run, and what runs from nothing make of it."""

    def __init__(self, folder, path):
        self.here, self.oracle = folder / "project", folder / "oracle"
        self.environment = {**os.environ, "PATH": path}
        self.known = {}  # {content: {file: hash}} of the oracle
        self.makers = {}  # {output: first output of its job}

    def snakemake(self, directory, *targets):
        """Run; return the status, what was said, and the first outputs of the jobs that ran."""
        words = [*ARGUMENTS, "--", *(targets or [random_edits.TARGET])]
        process = dry_runs.run(words, str(directory), self.environment)
        said = process.stdout + process.stderr
        ran = []
        for outputs in re.findall(r"^(?:local)?rule \w+:\n(?:    .*\n)*?    output: (.*)$", said, re.M):
            first, *others = outputs.split(", ")
            ran.append(first)
            self.makers.update({one: first for one in (first, *others)})
        return process.returncode, said, ran

    def results(self, directory):
        return {
            name: hashlib.sha256(MEASURED.sub(b"", (directory / name).read_bytes())).hexdigest()
            for name in random_edits.made(directory)
            if not name.startswith("results/fetched/") or (directory / _link(name)).exists()
        }

    def content(self):
        digest = hashlib.sha256()
        for name in random_edits.PATHS:
            for path in sorted([self.here / name, *(self.here / name).rglob("*")]):
                if path.is_file() and "__pycache__" not in path.parts:
                    digest.update(f"{path.relative_to(self.here)}\n".encode() + path.read_bytes())
        return digest.hexdigest()

    def wanted(self):
        """{file: hash} of what a run from nothing makes."""
        content = self.content()
        if content not in self.known:
            shutil.rmtree(self.oracle, ignore_errors=True)
            left = shutil.ignore_patterns("results", "work", "logs", ".snakemake")
            shutil.copytree(self.here, self.oracle, ignore=left)
            status, said, _ = self.snakemake(self.oracle)
            self.known[content] = self.results(self.oracle) if status == 0 else said
        return self.known[content]

    def missing(self):
        """The first outputs of jobs that lack an output."""
        return {first for one, first in self.makers.items() if not (self.here / one).exists()}

    def step(self, edits):
        """Run after the edits; return {what is wrong: details} and the jobs that ran."""
        allowed = "|".join([edit.runs for edit in edits] + [re.escape(one) for one in self.missing()])
        status, said, ran = self.snakemake(self.here)
        for _ in range(3):  # all damaged files are named at once, but then some can be of unknown origin
            told = re.search(r"made again by: rm -r (.*?) && snakemake", said)
            if status == 0 or not told or not any(edit.refused for edit in edits):
                break
            names = shlex.split(told[1])
            for name in names:
                place = self.here / name
                shutil.rmtree(place) if place.is_dir() and not place.is_symlink() else place.unlink()
            allowed += "|" + "|".join(re.escape(self.makers.get(name, name)) for name in names)
            status, said, more = self.snakemake(self.here)
            ran += more
        wanted = self.wanted()
        if isinstance(wanted, str):  # an edit left no pairs, say
            return {"void" if status else "stale": wanted[-1000:]}, ran
        if status:
            return {"broken": said[-3000:]}, ran
        found = self.results(self.here)
        needed = set(wanted) if not self.missing() else set(wanted) & (set(found) | {random_edits.TARGET})
        wrong = {}
        if stale := sorted(name for name in needed if found.get(name) != wanted[name]):
            wrong["stale"] = stale
        outputs = set(self.makers.values())
        if needless := sorted(set(ran) - random_edits.reached(allowed, outputs)):
            wrong["needless"] = needless
        return wrong, ran


@pytest.mark.long
@pytest.mark.timeout(0)
def test_random_edits_leave_nothing_stale_and_repeat_little(tmp_path, path, pytestconfig):
    number, seed = pytestconfig.getoption("--edits"), pytestconfig.getoption("--edits-seed")
    seed = random.randrange(10**6) if seed is None else seed
    print(f"\n{number} edits with --edits-seed {seed}", flush=True)
    project = Project(tmp_path, path)
    random_edits.prepare(
        copy_project(project.here),
        lambda to: small_model.make_model(to, small_model.make_tokenizer(), max_position_embeddings=256),
    )
    assert project.snakemake(project.here)[0] == 0
    project.known[project.content()] = project.results(project.here)
    wrong, kinds = [], Counter()
    for place in range(number):
        draw = random.Random(f"{seed} {place}")
        chosen = [draw.choice(draw.choice([random_edits.CONTENT, random_edits.REST, random_edits.REST]))]
        if draw.random() < 0.3:
            chosen.append(draw.choice(random_edits.REST))
        began = time.monotonic()
        edits = [edit(project.here, draw) for edit in chosen]
        found, ran = project.step(edits)
        kinds.update(edit.__name__ for edit in chosen)
        seconds = time.monotonic() - began
        what = " · ".join(edit.said for edit in edits)
        print(f"{place}: {what}: {len(ran)} jobs, {seconds:.0f} s {found or ''}", flush=True)
        if found:
            wrong.append((place, what, found))
        if found.keys() & {"stale", "broken", "void"}:  # the next edits begin with what is right
            shutil.rmtree(project.here)
            shutil.copytree(project.here.with_name("start"), project.here, symlinks=True)
            assert project.snakemake(project.here)[0] == 0
    print(dict(kinds), f"{len(project.known)} runs from nothing", flush=True)
    assert [one for one in wrong if one[2].keys() & {"stale", "broken"}] == []
    assert sum("needless" in one[2] for one in wrong) <= 0.05 * number, wrong
