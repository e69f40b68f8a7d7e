"""Libraries import no optional package that a job has no use for; whoever uses one still gets it."""

import json
import subprocess
import sys

import pytest
import small_model

from prefline import files, optional_packages

# Runs a script as a job does, and prints which modules of the first argument it has imported in the end.
RUN = """
import atexit, json, runpy, sys
names = json.loads(sys.argv.pop(1))
atexit.register(lambda: print(json.dumps(sorted(name for name in names if name in sys.modules))))
runpy.run_module(sys.argv.pop(1), run_name="__main__", alter_sys=True)
"""
MODEL_JOB = [*optional_packages.HIDDEN, "pandas"]


def imported(names, script, words):
    """Which of `names` the job `script` with the flags `words` has imported (list of str)."""
    command = [sys.executable, "-c", RUN, json.dumps(names), script, *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


def dialogues(path):
    turns = [{"role": "user", "content": "1 + 1?"}, {"role": "assistant", "content": "2"}]
    files.write_jsonl(path, [{"messages": turns}] * 8)
    return path


@pytest.mark.slow
def test_pretraining_imports_none(tmp_path):
    words = small_model.text_flags(small_model.make_texts(tmp_path, 8), tmp_path / "out", max_length=32)
    assert imported([*MODEL_JOB, "trl"], "scripts.models.pretrain", words) == []


@pytest.mark.slow
def test_a_training_imports_what_its_adapters_need_and_no_more(tmp_path):
    small_model.make_model(tmp_path / "start")
    data = dialogues(tmp_path / "dialogues.jsonl")
    sources = {"model": tmp_path / "start", "train_data": data, "eval_data": data}
    settings = {"columns": {"messages": "messages"}, "max_length": 64, "peft": small_model.QLORA}
    words = small_model.flags(tmp_path / "out", **sources, **settings)
    names = [name for name in optional_packages.HIDDEN if name != "datasets"]  # which TRL is made of
    assert imported(names, "scripts.models.train_sft", words) == ["bitsandbytes"]


@pytest.mark.slow
def test_all_trainers_of_trl_do_without():
    code = """
import sys
from prefline import optional_packages
optional_packages.hide()
from prefline.training import online_trainers, ppo
from trl import KTOTrainer, RewardTrainer, SFTTrainer
print(*sorted(optional_packages.HIDDEN.keys() & sys.modules.keys()))
"""
    assert subprocess.check_output([sys.executable, "-c", code], text=True).split() == [
        "bitsandbytes",  # of TRL's own client of vLLM
        "datasets",
    ]


def found_by(module):
    """Whether scikit-learn is found by the code of a module of this name."""
    finder = "import importlib.util\ndef found(): return importlib.util.find_spec('sklearn') is not None"
    return (
        "import sys, types\n"
        "from prefline import optional_packages\n"
        "optional_packages.hide()\n"
        f"module = types.ModuleType({module!r})\n"
        f"exec({finder!r}, vars(module))\n"
        "print(module.found())\n"
    )


@pytest.mark.parametrize(
    ("module", "found"),
    [
        ("transformers.utils.import_utils", False),
        ("transformers.dynamic_module_utils", True),
        ("transformers_modules.own.modeling", True),
        ("mine.rewards", True),
        ("lm_eval.api.metrics", True),
    ],
)
def test_a_package_is_hidden_from_its_library_alone(module, found):
    pytest.importorskip("sklearn")
    said = subprocess.check_output([sys.executable, "-c", found_by(module)], text=True)
    assert said.strip() == str(found)


def test_a_package_that_the_job_has_imported_is_found_by_all():
    pytest.importorskip("sklearn")
    code = "import sklearn\n" + found_by("transformers.utils.import_utils")
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "True"


USE_TABLES = """
import sys
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from prefline.data import tables

row = {name: None for name in tables.REF_LOGPS.names} | {"prompt_id": "a", "chosen_tokens": 3}
tables.write(sys.argv[1], [row], tables.REF_LOGPS)
table = tables.read(sys.argv[1], tables.REF_LOGPS)
table = table.filter(pc.equal(table["prompt_id"], "a"))
assert table["chosen_tokens"].to_numpy().tolist() == pa.array(np.array([3])).to_pylist()
assert "pandas" not in sys.modules
"""
USE_PANDAS = """
import pandas
frame = table.to_pandas()
assert pa.Table.from_pandas(frame)["ref_chosen_logps"].null_count == 1
assert pa.array(pandas.Series([1.0, float("nan")])).null_count == 1
"""


def test_tables_leave_pandas_alone_and_who_wants_frames_gets_them(tmp_path):
    subprocess.run([sys.executable, "-c", USE_TABLES, tmp_path / "a.parquet"], check=True)
    pytest.importorskip("pandas")
    subprocess.run([sys.executable, "-c", USE_TABLES + USE_PANDAS, tmp_path / "a.parquet"], check=True)
