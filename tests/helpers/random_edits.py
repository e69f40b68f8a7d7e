"""Random edits of a project in which all is made, each with what it may run again, told by hand.

A kind of edit is a function of (project, draw), which edits, and returns an `Edit`.
"""

import json
import os
import re
import shutil
from pathlib import Path
from typing import NamedTuple

import yaml
from snakemake.utils import update_config

TARGET = "results/winrate.json"
# The smallest chain that has a step of each kind: an overlay of config.yaml.
CONFIG = {
    "models": {"sft": {"source": "given"}},
    "train": {"learning_rate": 2e-4, "num_train_epochs": 1, "global_batch_size": 8},
    "prompts": {"source": "mine/prompts.jsonl", "num_prompts": 12, "num_test_prompts": 4, "shard_size": 16},
    "generate": {"num_completions": 3, "max_tokens": 8},
    "rank": {"truncated": "keep"},
    "rewards": {
        "reward_model": None,
        "own": {
            "kind": "function",
            "function": "mine/reward.py:score",
            "arguments": {},
            "weight": 1.0,
            "normalize": "none",
        },
    },
    "runs": {"rebel": None},
    "mt_bench": {"questions": "mine/questions.jsonl", "max_tokens": 8, "bootstrap_samples": 200},
}
REWARD = """from mine import helper

def score(messages, completion, reference):
    return float(len(completion) % helper.M)
"""
# Everything that results depend on, or that the edits change.
PATHS = ("config.yaml", "params.yaml", "mine", "given", "data", "scripts", "prefline", "rules", "Snakefile")
SAMPLES = "results/samples/sft"
CHECKS = "results/checks/"
# What reads what jobs make: (made, what is made from it), by the first output of jobs; groups must agree.
FLOW = [
    (r"results/models/sft", r"results/(?!checks/data|models/sft).*"),
    (r"results/prompts/pool\.parquet", rf"{SAMPLES}/prompts/.*"),
    (rf"{SAMPLES}/prompts/.*", rf"{SAMPLES}/(completions/.*|rewards/.*|preferences\.parquet)"),
    (rf"{SAMPLES}/completions/.*", rf"{SAMPLES}/(rewards/.*|preferences\.parquet)"),
    (rf"{SAMPLES}/rewards/.*", rf"{SAMPLES}/preferences\.parquet"),
    (rf"{SAMPLES}/preferences\.parquet", rf"{SAMPLES}/tokenized\.parquet"),
    (rf"{SAMPLES}/tokenized\.parquet", rf"{SAMPLES}/ref_logps/.*|results/models/\w+-1"),
    (rf"{SAMPLES}/ref_logps/.*", r"results/models/\w+-1"),
    (r"results/models/(\w+-1)", r"results/mt_bench/answers/{}\.jsonl"),
    (r"results/mt_bench/answers/sft\.jsonl", r"results/mt_bench/judgments/.*|results/winrate\.json"),
    (r"results/mt_bench/answers/(\w+-1)\.jsonl", r"results/(mt_bench/judgments/\w+/{}\.jsonl|winrate\.json)"),
    (r"results/mt_bench/judgments/.*", r"results/winrate\.json"),
]  # fmt: skip
POOL, COMPLETIONS, REWARDS = FLOW[1][0], FLOW[3][0], FLOW[4][0]
PREFERENCES, TOKENIZED, REF_LOGPS = FLOW[5][0], FLOW[6][0], FLOW[7][0]
TRAINED, ANSWERS, WINRATE = r"results/models/\w+-1", r"results/mt_bench/answers/.*", r"results/winrate\.json"
ALL, NONE = r".*", r"(?!)"


class Edit(NamedTuple):
    """What was edited, and what a run may then do."""

    said: str
    runs: str = NONE  # a pattern for the first outputs of the jobs that the edit itself runs
    refused: bool = False  # whether Snakemake may refuse, and name a command


def reached(runs, outputs):
    """Return those of `outputs` that match the pattern `runs`, and all that is made from them, by FLOW."""
    found, waiting = set(), [one for one in outputs if re.fullmatch(runs, one)]
    while waiting:
        one = waiting.pop()
        if one not in found:
            found.add(one)
            for made, readers in FLOW:
                if match := re.fullmatch(made, one):
                    pattern = readers.format(*match.groups()) if match.groups() else readers
                    waiting += [other for other in outputs if re.fullmatch(pattern, other)]
    return found


def prepare(project, model):
    """Add what the overlay names to a copy of the project; model: a function that writes one to a folder."""
    mine = project / "mine"
    mine.mkdir()
    for name, source, rows in (
        ("prompts", "data/world/prompts.jsonl", 60),
        ("questions", "data/mt_bench/question.jsonl", 4),
    ):
        lines = (project / source).read_text().splitlines(keepends=True)
        (mine / f"{name}.jsonl").write_text("".join(lines[:rows]))
    (mine / "helper.py").write_text("M = 7\n")
    (mine / "reward.py").write_text(REWARD)
    (mine / "config.yaml").write_text(yaml.safe_dump(CONFIG))
    model(project / "given")
    shutil.copytree(project, project.with_name("start"), symlinks=True)


RUN = {"iterations": 1, "init": "initial", "reference": "initial", "data": "current"}
# Keys of the config: (path, other values, what they run).
KEYS = [
    ("runs.dpo.beta", [0.2, 0.3], r"results/models/dpo-1"),
    ("runs.dpo.loss_type", ["hinge", "ipo"], r"results/models/dpo-1"),
    ("runs.hot", [{**RUN, "beta": 0.5}], r"results/models/hot-1|" + WINRATE),
    ("train.weight_decay", [0.1], TRAINED),
    ("rank.min_margin", [1.0], PREFERENCES),
    ("rank.strategy", ["max_random", "max_second"], PREFERENCES),
    ("rank.length_penalty", [0.5], PREFERENCES),
    ("rewards.own.weight", [2.0, -1.0], PREFERENCES),
    ("generate.temperature", [1.2], COMPLETIONS),
    ("generate.max_tokens", [9, 6], COMPLETIONS),
    ("prompts.num_prompts", [14, 20], rf"{POOL}|{SAMPLES}/prompts/.*|{PREFERENCES}"),
    ("tokenize.max_completion_length", [7, 60], TOKENIZED),
    ("logps.temperature", [0.7], rf"{REF_LOGPS}|{TRAINED}"),
    ("mt_bench.bootstrap_samples", [300, 400], WINRATE),
    ("mt_bench.max_tokens", [9, 6], ANSWERS),
    ("seed", [2], ALL),
    ("report.prompts", [400], NONE),
    ("machine.memory", [1000], NONE),
    ("publish.name", ["another"], NONE),
]
# Text of files: (file, old, new, what it runs); for code, with and without consequences.
TEXTS = [
    ("mine/helper.py", "M = 7", "M = 5", REWARDS),
    ("mine/reward.py", "return float", "return -float", REWARDS),
    ("scripts/rank/build_preferences.py", "rejected = below[-1]", "rejected = below[0]", PREFERENCES),
    ("scripts/tokenize/tokenize_preferences.py", "PERCENTILES = (50, ", "PERCENTILES = (40, ", TOKENIZED),
    ("prefline/training/loss_functions.py", "_smoothed(beta * batch", "_smoothed(2 * beta * batch", TRAINED),
    ("scripts/mt_bench/compute_winrate.py", '"ci_high", "matches")', '"matches")', WINRATE),
    ("scripts/mt_bench/compute_winrate.py", "\nCOLUMNS = [", "\nUNUSED = 1\nCOLUMNS = [", WINRATE),
    ("scripts/rank/build_preferences.py", '"""', '"""Said otherwise. ', NONE),
    ("prefline/files.py", '"""', "# A comment.\n" + '"""', NONE),
    ("scripts/train/train_policy.py", "\nimport math\n", "\n\n# A comment.\nimport math\n", NONE),
    ("config.yaml", "\nseed: 1", "\n# A comment.\nseed: 1", NONE),
    ("mine/prompts.jsonl", "A teacher", "The teacher", rf"{POOL}|{CHECKS}.*|{SAMPLES}/prompts/.*"),
    ("mine/questions.jsonl", "Tell the child", "Tell a child", ALL),
    ("mine/questions.jsonl", "has 4 legs", "has 5 legs", ALL),
    ("given/chat_template.jinja", "<|im_start|>", "<|im_start|>", NONE),
    ("given/generation_config.json", "0.3", "0.4", ALL),
]  # fmt: skip


def config_of(project):
    return yaml.safe_load((project / "mine/config.yaml").read_text())


def edit_key(project, draw):
    path, values, runs = draw.choice(KEYS)
    value, *keys = draw.choice(values), *path.split(".")
    overlay = value
    for key in reversed(keys):
        overlay = {key: overlay}
    config = config_of(project)
    update_config(config, overlay)
    (project / "mine/config.yaml").write_text(yaml.safe_dump(config, sort_keys=draw.random() < 0.5))
    return Edit(f"{path}: {value}", runs)


def edit_text(project, draw):
    name, old, new, runs = draw.choice(TEXTS)
    path = project / name
    status = path.stat()
    path.write_text(path.read_text().replace(old, new, 1))
    if set_back := draw.random() < 0.5:
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    return Edit(f"{name}: {old!r} to {new!r}{', date set back' * set_back}", runs)


def edit_row(project, draw):
    path = project / draw.choice(["mine/prompts.jsonl", "mine/questions.jsonl"])
    rows = path.read_text().splitlines(keepends=True)
    if path.stem == "questions" and len(rows) < 3:
        return Edit("nothing")
    del rows[draw.randrange(len(rows))]
    path.write_text("".join(rows))
    os.utime(path, (0, 0))
    return Edit(f"a row of {path.name} is gone, with an old date", ALL)


def undo(project, draw):
    """All files as they were at the start, as by `git checkout`; with other dates."""
    start, changed = project.with_name("start"), []
    for path in ("mine", "given", "config.yaml", "scripts", "prefline"):
        for file in [start / path, *(start / path).rglob("*")]:
            place = project / file.relative_to(start)
            if file.is_file() and "__pycache__" not in file.parts and place.read_bytes() != file.read_bytes():
                place.unlink()  # it may be a link
                shutil.copyfile(file, place)
                changed.append(str(file.relative_to(start)))
    return Edit(f"back to the start: {', '.join(changed)}", ALL if changed else NONE)


def made(project, inside="results"):
    """Files under results/ that jobs made, in order."""
    return sorted(
        str(path.relative_to(project))
        for path in (project / inside).rglob("*")
        if path.is_file() and "records" not in path.parts and path.name != ".snakemake_timestamp"
    )


def model_of(path):
    """The output that a file belongs to: the folder for a file of a model or of the metrics."""
    parts = Path(path).parts
    if parts[1] == "fetched":  # what a link in results/models/ leads to
        return str(Path("results/models", parts[2]))
    folder = (len(parts) > 3 and parts[1] == "models") or parts[1] == "metrics"
    return str(Path(*parts[: 2 if parts[1] == "metrics" else 3])) if folder else path


def delete_outputs(project, draw):
    names = made(project)
    chosen = {model_of(name) for name in draw.sample(names, min(len(names), draw.choice([1, 1, 3, 9])))}
    for name in chosen:
        path = project / name
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink(missing_ok=True)
    return Edit(f"deleted: {', '.join(sorted(chosen))}")  # what is missing may be made


def damage_output(project, draw):
    name = draw.choice(made(project))
    path = project / name
    status, content = path.stat(), bytearray(path.read_bytes())
    how = draw.choice(["appended", "flipped", "truncated"])
    if how == "appended" or not content:
        content += b"\n"
    elif how == "flipped":
        content[draw.randrange(len(content))] ^= 1
    else:
        del content[len(content) // 2 :]
    path.unlink()
    path.write_bytes(content)
    if set_back := draw.random() < 0.5:
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    return Edit(f"{how}: {name}{', date set back' * set_back}", refused=True)


def rewrite_outputs(project, draw):
    for name in draw.sample(made(project), 5):
        path = project / name
        content = path.read_bytes()
        path.unlink()
        path.write_bytes(content)
    return Edit("5 results written again as they were")


def _spoil(path, draw):
    """Damage or delete a file of bookkeeping; what was done."""
    how = draw.choice(["deleted", "emptied", "truncated", "garbage", "of another kind"])
    if how == "deleted":
        path.unlink()
    elif how == "of another kind":
        path.write_text(json.dumps(draw.choice([[], 3, None, {}, "a", {"sha256": 1}])))
    else:
        content = path.read_bytes()
        wanted = {"emptied": b"", "truncated": content[: len(content) // 2], "garbage": b"\xff\x00{"}
        path.write_bytes(wanted[how])
    return how


def edit_records(project, draw):
    records = sorted((project / "results/records").rglob("*.json"))
    how = draw.choice(["all", "some", "swapped", "foreign"])
    if how == "all":
        shutil.rmtree(project / "results/records")
    elif how == "foreign":
        (records[0].parent / ".nfs0001").write_bytes(b"\x00")
        (records[-1].parent / "notes.json").write_text("{}")
    elif how == "swapped":
        one, other = draw.sample(records, 2)
        text = one.read_bytes()
        one.write_bytes(other.read_bytes())
        other.write_bytes(text)
        return Edit(f"records swapped: {one.name}, {other.name}", refused=True)
    else:
        done = [f"{path.name} {_spoil(path, draw)}" for path in draw.sample(records, 3)]
        return Edit(f"records: {', '.join(done)}")
    return Edit(f"records: {how}")


def edit_work(project, draw):
    """Also files that results are hard links to, so that these are damaged, too."""
    files = sorted(path for path in (project / "work").rglob("*") if path.is_file())
    if not files or draw.random() < 0.3:
        shutil.rmtree(project / "work", ignore_errors=True)
        return Edit("work/ deleted")
    done = []
    for path in draw.sample(files, min(4, len(files))):
        content = path.read_bytes()
        if draw.random() < 0.5:
            path.unlink()
        else:
            path.write_bytes(content[: draw.randrange(len(content) + 1)])
        done.append(str(path.relative_to(project)))
    return Edit(f"deleted or cut: {', '.join(done)}", refused=True)


def edit_snakemake(project, draw):
    folder = project / ".snakemake"
    how = draw.choice(["all", "metadata", "some", "some", "own", "incomplete"])
    if how == "all":
        shutil.rmtree(folder)
    elif how == "metadata":
        shutil.rmtree(folder / "metadata", ignore_errors=True)
    elif how == "incomplete":
        source = draw.choice([*sorted((folder / "metadata").rglob("*")), folder])
        if source.is_file():
            (folder / "incomplete").mkdir(exist_ok=True)
            shutil.copyfile(source, folder / "incomplete" / source.name)
    else:
        files = sorted(folder.glob("prefline_*.json" if how == "own" else "metadata/*"))
        files = [path for path in files if path.is_file()]
        done = [f"{path.name} {_spoil(path, draw)}" for path in draw.sample(files, min(2, len(files)))]
        return Edit(f".snakemake: {', '.join(done)}")
    return Edit(f".snakemake: {how}")


def edit_times(project, draw):
    folder = draw.choice(["results", "results", "mine", "scripts", "given"])
    how = draw.choice(["old", "any", *["future"] * (folder == "results")])
    for path in (project / folder).rglob("*"):
        if path.is_file() and not path.is_symlink():
            time = {"old": 0, "future": 4e9, "any": draw.uniform(1e9, 1.7e9)}[how]
            os.utime(path, (time, time))
    return Edit(f"times of {folder}: {how}")


def edit_links(project, draw):
    cache = project.with_name("cache")
    cache.mkdir(exist_ok=True)
    names = draw.sample([*made(project), *made(project, "mine"), "given/model.safetensors"], 4)
    how = draw.choice(["symlink", "hardlink"])
    for name in names:
        path, kept = project / name, cache / f"{len(list(cache.iterdir()))}"
        shutil.copyfile(path, kept)
        path.unlink()
        path.symlink_to(kept) if how == "symlink" else path.hardlink_to(kept)
    return Edit(f"{how}: {', '.join(names)}")


def move(project, draw):
    """Elsewhere and back, as a copy without times, or without Snakemake's metadata."""
    copy = project.with_name("moved")
    keep = draw.random() < 0.5
    copied = shutil.copy2 if keep else shutil.copyfile
    left = shutil.ignore_patterns(*([] if keep else [".snakemake", "work", "logs"]))
    shutil.copytree(project, copy, symlinks=True, copy_function=copied, ignore=left)
    shutil.rmtree(project)
    copy.rename(project)
    return Edit("copied" if keep else "copied without dates, work/ and .snakemake/")


CONTENT = (edit_key, edit_key, edit_key, edit_text, edit_text, edit_row, undo, undo)
REST = (
    *(delete_outputs, delete_outputs, damage_output, rewrite_outputs, edit_records, edit_work),
    *(edit_snakemake, edit_times, edit_links, move),
)
