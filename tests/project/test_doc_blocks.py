"""Every code block of the README and of the pages under docs/ is tried, found in the Markdown itself.

    yaml            an overlay of config.yaml, which is valid
    bash, console   Snakemake's commands are dry runs in a copy of the project; of others that run Python or
                    make the flags and targets are there; what is cheap runs
    json, python    can be read; a diff can be applied

What can do neither stands in the lists below, with the reason. A block in another language, and a command
that is nowhere, fails. The commands of a page follow each other, and see the overlays above them. A block
under a line with a file's name between backticks and a colon is that file, for the commands of its page.
"""

import contextlib
import copy
import dataclasses
import importlib.util
import io
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import snakemake.cli
import yaml
from markdown_it import MarkdownIt
from project_copy import copy_project
from snakemake.utils import update_config

from docs.api_reference import parser_of
from prefline.config import loading

PAGES = ["README.md", "CONTRIBUTING.md", "data/README.md", *sorted(map(str, Path("docs").glob("*.md")))]
# Pages whose blocks need results or servers: the test that runs them.
TESTED_ELSEWHERE = dict.fromkeys(("docs/your_own.md", "docs/your_data.md"), "tests/workflow/test_your_own.py")
# First words of commands that are cheap and change no more than the copy they run in.
RUN = ("cp", "echo", "ls", "mkdir", "sed")
# First words of commands that cannot run here, and why, or what runs them.
NOT_RUN = {
    "git clone": "fetches from a network",
    "git tag": "makes a release",
    "git add": "changes the repository",
    "git commit": "changes the repository",
    "git push": "makes a release",
    "pre-commit": "fetches its hooks from a network",
    "cd": "the commands run in the project's folder",
    ".": "makes the environment active in which the tests run already",
    "$EDITOR": "asks a person",
    "tmux": "asks a person",
    "sinfo": "asks Slurm, which tests/cluster starts",
    "apptainer": "fetches or builds images of gigabytes",
    "docker": "builds images of gigabytes",
    "kubectl": "needs a cluster; tests/workflow/test_schedulers.py plans what the pod runs",
    "rsync": "copies from a rented machine",
    "sky": "rents machines; tests/project/test_rented.py runs their commands",
    "gguf-env/bin/pip": "installs a converter from a network",
    "gguf-env/bin/python": "runs llama.cpp's converter, which is not on PyPI",
    "llama-quantize": "is a program of llama.cpp",
    "llama-server": "is a program of llama.cpp",
    "awq-env/bin/pip": "installs a converter from a network",
    "awq-env/bin/python": "runs llm-compressor, which needs another version of transformers",
    "dvc": "tests/workflow/test_dvc.py runs it, on results that are there",
}
# Parts of Snakemake's command lines that keep them from a dry run; their flags are looked at nevertheless.
NOT_DRY = {
    "--report": "reports on results; tests/workflow/test_hostile.py makes one",
    "apptainer": "needs images; tests/workflow/test_containers.py has a stand-in",
    "conda": "installs environments of gigabytes; tests/workflow/test_environments.py runs it",
}
# Programs of others, and what runs them.
FOREIGN = {"fastchat.llm_judge.show_result": "tests/scripts/mt_bench/test_agreement_with_fastchat.py"}
TEXT = ("", "text")
SHELLS = ("bash", "sh", "console")


@dataclasses.dataclass
class Block:
    page: str
    line: int
    language: str
    text: str
    name: str | None

    def __str__(self):
        return f"{self.page}:{self.line}"


def blocks(page, text):
    """Every code block of a page, fenced or indented."""
    tokens, found = MarkdownIt("commonmark").enable("table").parse(text), []
    for before, token in zip([None, None, *tokens], tokens, strict=False):
        if token.type in ("fence", "code_block"):
            named = re.fullmatch(r"`(\w[\w./-]*)`:", before.content) if before and before.content else None
            language = token.info.split()[0] if token.info.strip() else ""
            found.append(Block(page, token.map[0] + 1, language, token.content, named and named[1]))
    return found


def commands(block):
    """The commands of a block of a shell: list of lists of words, comments and variables left out."""
    text = block.text
    if block.language == "console":
        text = "\n".join(line[2:] for line in text.splitlines() if line.startswith("$ "))
    found = []
    for line in text.replace("\\\n", " ").splitlines():
        for part in re.split(r" && | \| ", line):
            words = shlex.split(part, comments=True)
            while words and (re.match(r"\w+=", words[0]) or words[0] == "export"):
                words.pop(0)
            if words:
                found.append(words)
    return found


def listed(words):
    """What of NOT_RUN a command is, or None."""
    return next((key for key in NOT_RUN if words[: len(key.split())] == key.split()), None)


def check_snakemake(words):
    """A command line of Snakemake is one: its parser takes it, and the rules that it names are there."""
    args = snakemake.cli.get_argument_parser().parse_args(words)
    for setting in args.set_resources or []:
        rule = setting.split(":")[0]
        assert rule in rules(), f"there is no rule {rule}"


def check_python(words):
    """`python -m NAME FLAGS`: there is such a program, and it takes these flags."""
    if words[0] == "-c":
        return compile(words[1], "-c", "exec")
    assert words[0] == "-m", "only python -m and python -c are understood here"
    name, flags = words[1], words[2:]
    if name in FOREIGN:
        assert Path(FOREIGN[name]).exists()
        return importlib.util.find_spec(name.split(".")[0]) or pytest.skip(f"{name} is not installed")
    assert importlib.util.find_spec(name), f"there is no module {name}"
    parser = parser_of(name)
    assert parser or not flags, f"{name} takes no flags"
    if parser and flags != ["--help"]:
        parser.parse_args(flags[: flags.index("--")] if "--" in flags else flags)  # the rest is another's


def check_command(words):
    """Raise AssertionError for a command that cannot be right, or that nobody knows how to try."""
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            if words[0] == "snakemake":
                check_snakemake(words[1:])
            elif words[0] == "python":
                check_python(words[1:])
            elif words[0] == "make":
                made = subprocess.run(["make", "-n", *words[1:]], capture_output=True, text=True)
                assert made.returncode == 0, made.stderr
            else:
                assert words[0] in RUN or listed(words), "this command is in none of the lists of this test"
    except SystemExit:
        raise AssertionError(f"{shlex.join(words)}: {said.getvalue().splitlines()[-1]}") from None


def rules():
    """The names of all rules, `use rule` included."""
    text = "".join(path.read_text(encoding="utf-8") for path in Path("rules").glob("*.smk"))
    found = re.findall(r"^ *(?:rule (\w+):|use rule \w+ as (\w+) )", text, re.M)
    return {name for pair in found for name in pair if name}


def is_commands(block):
    """Whether a block is one of commands: by its language, or where it has none by its first word."""
    if block.language not in TEXT:
        return block.language in SHELLS
    with contextlib.suppress(ValueError):
        first = next(iter(commands(block)), [""])
        return first[0] in ("snakemake", "python", "make", *RUN) or listed(first) is not None
    return False


def check_overlay(text, folder):
    """A block of YAML is a valid overlay of config.yaml."""
    overlay = folder / "overlay.yaml"
    overlay.write_text(text, encoding="utf-8")
    whole = copy.deepcopy(yaml.safe_load(Path("config.yaml").read_text(encoding="utf-8")))
    update_config(whole, yaml.safe_load(text))
    loading.load(whole, [overlay, "config.yaml"])


def check_json(text, _):
    try:
        json.loads(text)
    except json.JSONDecodeError:
        for line in text.splitlines():
            json.loads(line)


def check_python_text(text, _):
    compile(text, "block", "exec")


def check_diff(text, _):
    words = ["git", "apply", "--check", "--verbose", "-"]
    made = subprocess.run(words, input=text, capture_output=True, text=True)
    assert made.returncode == 0, made.stderr
    assert "offset" not in made.stderr, f"the diff's line numbers are old:\n{made.stderr}"


CHECKS = {"yaml": check_overlay, "json": check_json, "python": check_python_text, "diff": check_diff}


def of(page):
    return blocks(page, Path(page).read_text(encoding="utf-8")) if Path(page).exists() else []


BLOCKS = [block for page in PAGES for block in of(page) if page not in TESTED_ELSEWHERE]
INLINE = sorted(
    {
        (page, " ".join(token.content.split()))
        for page in PAGES
        for top in MarkdownIt("commonmark").enable("table").parse(Path(page).read_text(encoding="utf-8"))
        for token in top.children or []
        if token.type == "code_inline" and re.match(r"(snakemake|make|python -m) [^…A-Z]*$", token.content)
    }
)


@pytest.mark.parametrize("block", BLOCKS, ids=str)
def test_a_block_is_right(block, tmp_path):
    if is_commands(block):
        for words in commands(block):
            check_command(words)
    # {directives} are Sphinx's, whose warnings are errors.
    elif block.language not in TEXT and not block.language.startswith("{"):
        assert block.language in CHECKS, f"nobody knows how to try a block of {block.language}"
        CHECKS[block.language](block.text, tmp_path)


@pytest.mark.parametrize("page, command", INLINE)
def test_a_command_in_a_sentence_is_right(page, command):
    words = shlex.split(command)
    if words[0] == "python" and len(words) == 3:
        assert importlib.util.find_spec(words[2]), "a program is named, and it is not there"
    else:
        check_command(words)


def test_what_is_listed_is_there():
    said = [words for block in BLOCKS if is_commands(block) for words in commands(block)]
    assert set(map(listed, said)) - {None} == set(NOT_RUN), "NOT_RUN has what no page says"
    assert all(any(part in words for words in said) for part in NOT_DRY)
    for page, test in TESTED_ELSEWHERE.items():
        assert page in PAGES and Path(test).exists()


@pytest.mark.parametrize(
    "text, reason",
    [
        ("```bash\nsnakemake --sdm conda apptainer results/winrate.png\n```", "invalid choice"),
        ("```bash\nsnakemake --set-resources no_rule:batch_size=1\n```", "no rule no_rule"),
        ("```bash\nmake nothing\n```", "nothing"),
        ("```bash\npython -m tools.costs --logs logs --no-flag\n```", "--no-flag"),
        ("```bash\nrm -r results\n```", "none of the lists"),
        ("    python -m scripts.nowhere\n", "no module scripts.nowhere"),
        ("```yaml\nrun:\n  dpo: {beta: 0.2}\n```", "no key 'run'"),
        ("```yaml\ntrain: {beta: -1}\n```", "train.beta"),
        ("```perl\nprint\n```", "perl"),
    ],
)
def test_a_wrong_block_is_found(text, reason, tmp_path):
    (block,) = blocks("page", text)
    with pytest.raises(Exception, match=reason):
        test_a_block_is_right(block, tmp_path)


def runs_here(words):
    """Whether a command runs in the copy of the project, as a dry run or for real."""
    return words[0] in RUN or (words[0] == "snakemake" and not NOT_DRY.keys() & set(words))


PAGES_THAT_RUN = [
    page
    for page in PAGES
    if any(runs_here(words) for block in of(page) if is_commands(block) for words in commands(block))
    and page not in TESTED_ELSEWHERE
]


@pytest.fixture
def project(tmp_path):
    """The project's files, nothing made yet."""
    return copy_project(tmp_path / "copy")


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES_THAT_RUN)
def test_the_commands_of_a_page_run(page, project):
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    overlays, done = [], []
    for block in of(page):
        if block.name:
            (project / block.name).parent.mkdir(parents=True, exist_ok=True)
            (project / block.name).write_text(block.text, encoding="utf-8")
        elif block.language == "yaml":
            overlays.append(f"overlay-{block.line}.yaml")
            (project / overlays[-1]).write_text(block.text, encoding="utf-8")
        for words in filter(runs_here, commands(block) if is_commands(block) else []):
            if words[0] == "snakemake":
                under = ["--configfile", *overlays] if overlays and "--configfile" not in words else []
                words = [*(word for word in words if word != "-n"), *under, "--dry-run"]
            if words in done:
                continue
            done.append(words)
            made = subprocess.run(words, cwd=project, env=environment, capture_output=True, text=True)
            assert made.returncode == 0, f"{block}: {shlex.join(words)}\n{made.stdout}{made.stderr}"
