"""Files and folders that the config names: each that is missing is one sentence with its key."""

import copy

import pytest
from configs import DEFAULT, PROPERTIES, changed, model_directory, put

from prefline.config import loading as configuration
from prefline.config import named_files
from prefline.errors import InputError

JUDGE = {
    **{
        "kind": "judge",
        "endpoint": "own",
        "rubric": "README.md",
        "lowest": 1,
        "highest": 10,
        "max_tokens": 64,
        "weight": 1,
        "normalize": "none",
    },
}
FUNCTION = {
    **{"kind": "function", "function": "prefline/rewards/functions.py:length", "arguments": {}},
    **{"weight": 1, "normalize": "none"},
}
LLM = {"endpoint": "claude", "max_tokens": 1}
ENDPOINTS = {"own": {"kind": "vllm", "model": "judge"}, "claude": {"kind": "anthropic", "model": "c"}}
TRAINED = ("base", "sft", "reward_model")
# Keys that take several sources of data.
DATA = {path for path, schema in PROPERTIES if schema.get("then") == {"$ref": "#/$defs/data_source"}}
# Keys that look like paths to a reader of the schema, by their patterns.
LOOK_LIKE_PATHS = {
    path
    for path, schema in PROPERTIES
    # A loss is sought where its signature is read: test_runs.py.
    if ("{}" in str(schema.get("pattern")) or "path" in schema) and path[-1] != "loss_type"
} | DATA


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """The path of a directory that looks like a model with weights."""
    return model_directory(tmp_path_factory.mktemp("models") / "model")


def everything_used(model):
    """A config in which every key that names a file or folder counts, and none of them is missing."""
    config = copy.deepcopy(DEFAULT)
    config["models"]["judge"] = {"source": model, "chat_template": "recipes/plain.jinja"}
    config["endpoints"] = ENDPOINTS
    config["rewards"] |= {"asked": JUDGE, "counted": FUNCTION}
    config["prompts"]["preferences"]["use"] = True
    config["mt_bench"] |= {"judge": ["reference", "llm"], "judges": {"llm": LLM}}
    return copy.deepcopy(config)


def sentence(config):
    """What is said of a config's files; None if nothing is missing."""
    try:
        named_files.check(named_files.used(configuration.load(config)))
    except InputError as error:
        assert "\n" not in str(error)
        return str(error)


USED = [
    ("models", "start", "source"),
    ("models", "judge", "source"),
    ("models", "judge", "chat_template"),
    *(("models", name, key) for name in TRAINED for key in ("train_data", "eval_data")),
    *(("models", name, "source") for name in TRAINED),
    ("prompts", "source"),
    ("prompts", "preferences", "source"),
    *(("mt_bench", key) for key in ("questions", "references", "judge_prompts")),
    ("rewards", "asked", "rubric"),
    ("rewards", "counted", "function"),
    ("vibe_check", "prompts"),
]
BENCHMARK_KEYS = [path[-1] for path in sorted(LOOK_LIKE_PATHS) if path[0] == "benchmarks"]


def test_corrections_of_fetched_references_are_looked_for():
    section = DEFAULT["mt_bench"] | {"references": f"https://a/b.jsonl#sha256={'0' * 64}"}
    said = sentence(DEFAULT | {"mt_bench": section | {"corrections": "data/nothing.jsonl"}})
    assert "mt_bench.corrections" in said and "data/nothing.jsonl" in said
    assert sentence(DEFAULT | {"mt_bench": section | {"corrections": "data/rubric.txt"}}) is None


def test_no_key_of_the_schema_that_is_a_path_is_left_out():
    tried = {path[-1] for path in USED} | set(BENCHMARK_KEYS) | {"corrections"}
    assert {path[-1] for path in LOOK_LIKE_PATHS} == tried
    assert len(BENCHMARK_KEYS) == 9
    for path, schema in PROPERTIES:
        if path in LOOK_LIKE_PATHS - DATA:
            assert schema["path"] in ("file", "directory", "function", "model", "data", "fetched_file"), path


def test_a_config_whose_files_are_all_there_is_good(model):
    assert sentence(DEFAULT) is None
    assert sentence(everything_used(model)) is None


@pytest.mark.parametrize("path", USED, ids=".".join)
def test_what_is_missing_is_named_with_its_key(model, path):
    config = everything_used(model)
    missing = {"function": "mine/gone.py:f", "source": "mine/gone"}.get(path[-1], "mine/gone.jsonl")
    put(config, path, "mine/gone.jsonl" if path[0] == "prompts" else missing)
    kind = "directory" if path[::2] == ("models", "source") else "file"
    key = ".".join(path)
    said = sentence(config)
    assert said.startswith(f"config: {key}: there is no {kind} mine/gone"), said
    hub = ", or write hub:mine/gone@COMMIT for one on the hub"
    assert said.endswith(
        "; correct the path" + (hub if path[-1] == "source" and kind == "directory" else ", or put it there")
    )


@pytest.mark.parametrize("key", BENCHMARK_KEYS)
def test_a_benchmarks_file_is_checked_when_it_is_asked_for(key):
    section = {"kind": "lm_eval", "tasks": ["a"], "include_path": "mine/gone", "num_fewshot": None}
    section |= {"limit": None, "apply_chat_template": False, "dtype": "float32"}
    assert sentence({**DEFAULT, "benchmarks": {"own": section}}) is None
    with pytest.raises(InputError, match=rf"^config: benchmarks\.own\.{key}: there is no \w+ mine/gone "):
        named_files.check({"benchmarks": {"own": {key: "mine/gone"}}})


def test_one_of_several_sources_is_named_by_its_place():
    said = sentence(changed(("prompts", "source"), ["data/world/prompts.jsonl", "gone.jsonl"]))
    assert said.startswith("config: prompts.source.1: there is no file gone.jsonl")


@pytest.mark.parametrize(
    ("path", "value", "end"),
    [
        (("models", "sft", "source"), "data/polcy", "; did you mean data/policy?"),
        (("models", "sft", "source"), "dta/policy/", "; did you mean data/policy?"),
        (
            ("vibe_check", "prompts"),
            "data/wrold/vibe_check.jsonl",
            "did you mean data/world/vibe_check.jsonl?",
        ),
        (("models", "sft", "source"), "README.md", "README.md is not a directory; name one"),
        (("mt_bench", "questions"), "data/mt_bench", "data/mt_bench is not a file; name one"),
    ],
)
def test_what_to_write_instead(path, value, end):
    assert sentence(changed(path, value)).endswith(end)


def test_an_absolute_path_may_be_anywhere(model):
    assert sentence(changed(("models", "sft", "source"), model)) is None
    assert f"did you mean {model}?" in sentence(changed(("models", "sft", "source"), f"{model}x"))


@pytest.mark.parametrize(
    "changes",
    [
        {("models", "sft", "source"): "MODEL", ("models", "sft", "train_data"): "gone.jsonl"},
        {("models", "other"): {"source": "gone"}},
        {("prompts", "preferences", "source"): "gone.jsonl"},
        {("mt_bench", "judge_prompts"): "gone.jsonl"},
        {("mt_bench", "judge"): "reward", ("mt_bench", "references"): "gone.jsonl"},
        {("models", "sft", "source"): "hub:a/b@c"},
        {("prompts", "source"): "hub:a/b@c#train"},
        {("mt_bench", "questions"): f"https://a.org/b.jsonl#sha256={'0' * 64}"},
        {
            **{("models", name, "source"): "MODEL" for name in ("sft", "reward_model")},
            **{("models", "base", "train_data"): "gone.jsonl", ("models", "start", "source"): "gone"},
        },
    ],
)
def test_what_nothing_reads_here_may_be_missing(model, changes):
    config = copy.deepcopy(DEFAULT)
    for path, value in changes.items():
        put(config, path, model if value == "MODEL" else value)
    assert sentence(config) is None


def test_sources_of_data_may_be_several_patterns_and_folders(tmp_path):
    for name in ("train-0.jsonl", "train-1.jsonl", "test-0.jsonl"):
        (tmp_path / name).write_text("{}\n")
    source = [
        {"source": f"{tmp_path}/train-*.jsonl", "weight": 2},
        {"source": f"{tmp_path}/test-0.jsonl", "weight": 1},
    ]
    assert sentence(changed(("prompts", "source"), source)) is None
    assert "holds several splits (test, train)" in sentence(changed(("prompts", "source"), str(tmp_path)))
    (tmp_path / "test-0.jsonl").unlink()
    assert sentence(changed(("prompts", "source"), str(tmp_path))) is None
    said = sentence(changed(("prompts", "source"), source))
    assert said.startswith("config: prompts.source.1.source: there is no file ")
    said = sentence(changed(("prompts", "source"), f"{tmp_path}/gone-*.jsonl"))
    assert "gone-*.jsonl: holds no data file" in said


@pytest.mark.parametrize("function", ["verifiers.py:math", "verifiers.py:code", "functions.py:exact_match"])
def test_a_reward_that_compares_with_a_reference_needs_its_column(function):
    """Known by the function's `reference: str`, before anything is sampled."""
    named = f"prefline/rewards/{function}"
    reward = {"kind": "function", "function": named, "arguments": {}, "weight": 1.0, "normalize": "none"}
    config = changed(("rewards", "right"), reward)
    with pytest.raises(InputError, match=rf"right: {named} compares .* in prompts.columns.reference$"):
        named_files.check(config)
    config["prompts"]["columns"]["reference"] = "answer"
    named_files.check(config)
    config["rewards"]["right"]["function"] = "prefline/rewards/verifiers.py:format"
    config["prompts"]["columns"]["reference"] = None
    named_files.check(config)
