"""The project's prose is plain English, and the check that tells finds what it should."""

import pytest

from tools.check_prose import check, project_files

# {file or folder: {words of a finding: why they may stay}}; no words: the file is not checked.
EXCEPTIONS = {
    "tools/check_prose.py": {"": "lists the phrases that it finds"},
    "docs/reruns.md": {"": "is generated from the workflow"},
}
# Sentences that this project once had, each with the file it was in.
HARD = {
    "README.md": [
        "And back at 0.1, the policy of before\nis taken from where it was kept.",
        "A preempted training goes on after its last step, a killed job makes no finished row\ntwice.",
        "What stays is known by its contents, not by dates.",
        "A misspelt key or a missing file is reported in one sentence before anything runs.",
        "It pushes model and card to the hub, the pairs too if `publish.pairs` says so.",
    ],
    "docs/training.md": [
        "| `zero3` | the same, by DeepSpeed | who prefers it; `pip install deepspeed` |",
    ],
    "docs/cluster.md": [
        "## Who says what",
    ],
    "docs/edits.md": [
        "How many rows a machine takes at once is a `resource` of the rules and changes no result",
    ],
    "docs/faq.md": [
        "A mean over the held-out pairs stands as\n`eval_loss_before` in `metrics.json`.",
    ],
    "docs/losses.md": [
        "A warning in the training's log says when the pairs' median difference of rewards, times "
        "eta, asks for more than 5 nats for each token of rejected, or less than 0.01, and which "
        "eta would ask for 0.5.",
    ],
    "docs/mt_bench.md": [
        "What is there is never asked for again, in whatever match, run\n  or mode.",
    ],
    "docs/online.md": [
        "While rloo and grpo sample and are looked at, each process holds the whole policy.",
    ],
    "docs/ranking.md": [
        "- That a judge is talked into a\n  number no program prevents: read the highest rewards.",
    ],
    "config.yaml": [
        "beta: 0.1 # this and the next five: of the losses that have them",
        "# What every training takes where train or a run says nothing else.\nseed: 1",
    ],
    "rules/schemas/config.schema.yaml": [
        "head_weights:\n  description: What each head counts; null for one head or a gate of its own.",
    ],
    "prefline/engines/vllm.py": [
        "# Killed it is by the kernel, when memory is short.\n",
        'def f():\n    """What vLLM reads from the environment."""\n',
    ],
    "scripts/models/pretrain.py": [
        "# A branch that has moved is other data, which no checkpoint of before belongs to.",
    ],
    "scripts/rank/build_preferences.py": [
        'log(f"{n} completions truncated; look at rank.truncated")',
    ],
    "rules/common.smk": [
        'def of_kind(sections):\n    """The names of the sections of some kinds."""\n',
        'raise WorkflowError(f"{path}: a folder that stands " "in its place")',
    ],
}
# Sentences like those that replaced them.
PLAIN = {
    "README.md": [
        "# Prefline\n\nPrefline aligns language models. Edit `config.yaml`; only dependent jobs run.",
        "A preempted training resumes after its last step.",
        "How do I resume a run? Repeat the command.",
    ],
    "docs/faq.md": [
        "## Out of memory\n\n- Lower `batch_size`.\n- Use `bfloat16`.\n",
        "```bash\nsnakemake # goes on where it stands\n```\n",
    ],
    "docs/cluster.md": [
        "| key | meaning |\n|---|---|\n| `goes on` | seconds between two checkpoints |\n",
    ],
    "config.yaml": [
        "beta: 0.1 # strength of the KL penalty: sigmoid, ipo and others with a reference",
        "# Overlay your own file with `--configfile mine.yaml`.\nseed: 1 # of every random draw",
    ],
    "rules/schemas/config.schema.yaml": [
        "description: Highest learning rate, reached after the warm-up.",
    ],
    "prefline/files.py": [
        'def size(path):\n    """Return the bytes of a file; raise InputError without one."""',
        "# The server may be slow, so a request waits.\n",
    ],
    "scripts/train/train_policy.py": [
        '"""Train a policy.\n\n    reads  prompt_id, prompt\n    writes weights\n"""',
        'f(f"{path}, row {n}: prompt is empty; remove the row or fill it in")',
    ],
    "rules/common.smk": [
        'PATTERN = r"(?:goes) on and so it stands\\b"\n',
    ],
}


def cases(sentences):
    """Return the parameters (path, sentence) of {path: [sentence]}."""
    return [(path, sentence) for path, found in sentences.items() for sentence in found]


@pytest.mark.parametrize("path, source", cases(HARD))
def test_hard_sentences_are_found(path, source):
    assert check(path, source), source


@pytest.mark.parametrize("path, source", cases(PLAIN))
def test_plain_sentences_pass(path, source):
    assert check(path, source) == []


@pytest.mark.parametrize("path", project_files())
def test_prose_is_plain(path):
    allowed = EXCEPTIONS.get(path, {})
    found = [finding for finding in check(path) if not any(words in finding.words for words in allowed)]
    assert not found, "\n".join(f"{path}:{line}: “{words}” {advice}" for path, line, words, advice in found)


def test_exceptions_are_needed():
    """An exception whose sentence is gone would let the next one pass."""
    for path, allowed in EXCEPTIONS.items():
        found = check(path)
        for words in allowed:
            assert any(words in finding.words for finding in found), (path, words)
