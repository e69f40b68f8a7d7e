"""Overlays with mistakes: each is a valid config, or one sentence before any job is planned."""

import copy
import json

import pytest
import yaml
from configs import DEFAULT
from hypothesis import given, settings
from hypothesis import strategies as st
from snakemake.utils import update_config

from prefline.config import loading as configuration
from prefline.config import named_files
from prefline.errors import InputError

LONG = "a" * 5000
FUNCTION = (
    "rewards: {f: {kind: function, function: 'prefline/rewards/functions.py:NAME', weight: 1, "
    "normalize: none, arguments: ARGUMENTS}}"
)
JUDGE = (
    "{kind: judge, endpoint: e, rubric: data/rubric.txt, lowest: 1, highest: 10, max_tokens: 5, weight: 1, "
    "normalize: none}"
)
RUN = "{iterations: 1, init: initial, reference: initial, data: current}"


NAMED = (
    f"runs: {{NAME: {RUN}}}",
    "models: {NAME: {source: data/policy}}",
    "rewards: {NAME: {kind: function, function: a.py:b, weight: 1, normalize: none, arguments: {}}}",
    "benchmarks: {NAME: {kind: evalplus, problems: x, temperature: 0, max_tokens: 1}}",
    "endpoints: {NAME: {kind: openai, model: m, urls: ['http://h/v1']}}",
)
# Names that shells, file systems, Python or our own folders know, and that are just names here.
TAKEN = ("con", "nul", "all", "models", "initial", "checks", "tie", "policies", "true_", "a" * 64)


def function(arguments, name="length"):
    return FUNCTION.replace("ARGUMENTS", arguments).replace("NAME", name)


def url(address):
    return f"endpoints: {{e: {{kind: openai, model: m, urls: [{address}]}}}}\nrewards: {{j: {JUDGE}}}"


VALID = [
    *("seed: 1e3", "seed: '1_000'", "seed: 0x10", "seed: -0", '{"seed":\t2}', "\ufeffseed: 3", "# nothing"),
    *("%YAML 1.2\n---\nseed: 3", "&a seed: 3", "<<: {seed: 3}", "seed: &a 3\nreport: {prompts: *a}"),
    *("train: {learning_rate: 1e-4}", "train: {learning_rate: ' 1e-4 '}", "rank: {min_margin: 1e-3}"),
    *("mt_bench: {temperature: {math: 1e-1}}", "logps: {num_shards: 1e3}"),
    *("models: {reward_model: {columns: {prompt: null}}}", "models: {x: {source: data/policy}}"),
    *("models: {sft: {columns: {messages: null, text: text}}}", "runs: {dpo: {beta: null}}"),
    *("endpoints: {e: null}", "benchmarks: {a: null}", "prompts: {system: ''}"),
    'prompts: {system: "two\\nlines\\tand a tab"}',
    *(url(f"'{one}'") for one in ("http://[::1]:80/v1", "HTTP://h/v1", "https://h.org:8443/a/v1/")),
    *(function(one) for one in ("{target: 1e-3}", "{target: 5}", "{target: ~}", "{}")),
    function("{pattern: '[[:2020-01-01'}", "regex"),
    *(f"runs: {{{name}: {RUN}}}" for name in TAKEN),
    *(f"experiment: {name}" for name in TAKEN),
]
REFUSED = {
    # numbers
    **{
        f"seed: {one}": "config: seed: " for one in ("1e400", "'1e400'", ".inf", ".nan", "1e30", "-1", "true")
    },
    **{f"seed: {one}": "config: seed: " for one in ("1e999999999", "9" * 400, "2020-01-01", "!!binary aGk=")},
    **{
        f"train: {{beta: {one}}}": "config: train.beta: "
        for one in ("1e400", "1e999999999", "0x1p-3", "0.1x")
    },
    "train: {num_train_epochs: 1:30}": "line 1: train.num_train_epochs: YAML reads 1:30 as the number 90;",
    "train:\n  global_batch_size: 010": "line 2: train.global_batch_size: YAML reads 010 as the number 8;",
    "prompts: {num_prompts: 1e12}": "config: prompts.num_prompts: 1000000000000 prompts would be more than",
    "runs: {dpo: {iterations: 1000}}": "config: runs.dpo.iterations: 1000 is greater than the maximum of 999",
    # names, categories, columns
    "mt_bench: {temperature: {writting: 0.1}}": "'writting'; did you mean 'writing'?",
    "mt_bench: {temperature: {1: 0.1}}": "config: mt_bench.temperature: YAML reads the name 1 as int;",
    "mt_bench: {temperature: {math: null}}": "config: mt_bench.temperature.math: ",
    "models: {base: {columns: {text: null}}}": "models.base.columns: name a column for text; it names none",
    "models: {base: {columns: {text: null, messages: m}}}": "name a column for text; it names messages",
    "models: {sft: {columns: {messages: null}}}": "name a column for messages, or completion and prompt",
    "models: {reward_model: {columns: {chosen: null}}}": "config: models.reward_model.columns: ",
    "models: {reward_model: {columns: {rejected: null}}}": "it names chosen, prompt",
    "prompts: {preferences: {use: true, columns: {chosen: null}}}": "columns: name a column for chosen",
    "prompts: {columns: {prompt: null}}": "name a column for prompt, or dialogue; it names",
    "vibe_check: {columns: {prompt: null}}": "config: vibe_check.columns: name a column for prompt",
    "vibe_check: {columns: {promt: a}}": "'promt' is none of its values; did you mean 'prompt'?",
    **{f"{one}: 3": "config: YAML reads the name " for one in ("1", "null", "true", "2020-01-01", "1.5")},
    f"runs: {{yes: {RUN}}}": "config: runs: YAML reads the name True as bool;",
    **{
        section.replace(
            "NAME", repr(name)
        ): f"config: {section.partition(': {NAME')[0]}: the name {name[:20]!r}"
        for section in NAMED
        for name in ("a" * 250, "dpo\u0430", "e\u0301", "\u00e9", "Dpo", ".", "..", "a/b", "1a", "_a")
    },
    f"runs: {{dp\u043e: {RUN}}}": "has the character '\u043e' (CYRILLIC SMALL LETTER O); use lower",
    "experiment: con.": "config: experiment: the name 'con.' has the character '.'",
    f"runs: {{base: {RUN}}}": "config: runs.base has the name of a model; give the run another name",
    "runs: {dpo: {seeds: [010]}}": "line 1: runs.dpo.seeds.0: YAML reads 010 as the number 8;",
    "runs: {dpo: {seeds: [1, true]}}": "config: runs.dpo.seeds.1: True is not of type 'integer'",
    "runs: {dpo: {seeds: [99999999999999999999]}}": "is too large; 9007199254740992 is the largest",
    "seed: 1e30": "config: seed: 1e30 is too large; 9007199254740992 is the largest",
    "runs: {dpo: {seeds: ['1', 1]}}": "config: runs.dpo.seeds: [1, 1] has non-unique elements",
    "sead: 3": "config: the top level has no key 'sead'; did you mean 'seed'?",
    # circles of models
    "models: {base: {init: base}}": "models.base.init names base, which is trained from it (base <- base)",
    "models: {base: {init: sft}}": "(base <- sft <- base); name a finished model",
    "models: {reward_model: {init: reward_model}}": "models.reward_model.init names reward_model, which",
    "models: {sft: {init: reward_model}}": "config: models.sft.init names reward_model, which gives scores",
    # paths and texts
    f"prompts: {{source: {LONG}.jsonl}}": "config: prompts.source: aaaa",
    f"models: {{start: {{source: {LONG}}}}}": "config: models.start.source: aaaa",
    f"models: {{start: {{source: {'a/' * 3000}}}}}": "name a directory that can be read",
    'models: {start: {source: "a\\0b"}}': r"config: models.start.source: has the control character '\x00'",
    'prompts: {source: "data\\e.jsonl"}': r"config: prompts.source: has the control character '\x1b'",
    'prompts: {system: "a\\0b"}': "config: prompts.system: has the control character",
    'prompts: {system: "a\\ud800"}': "config: prompts.system: has the control character",
    f"prompts: {{system: '{'x' * 100_000}'}}": "is too long (A system message",
    'models: {"a\\tb": {source: data/policy}}': r"config: models: the name 'a\tb': has the control",
    **{
        f'publish: {{{key}: "mit\\n"}}': "has the control character"
        for key in ("namespace", "name", "license")
    },
    'generate: {vllm: {kv_cache_dtype: "a\\nb"}}': "has the control character",
    'tokenize: {max_prompt_length: "p95\\n"}': "has the control character",
    'benchmarks: {a: {kind: evalplus, problems: "x\\0", temperature: 0, max_tokens: 1}}': "control character",
    # YAML
    "seed: &a [*a]": "line 1: seed contains itself",
    "prompts:\n  system: &a\n  - b: *a": "line 2: prompts.system.0 contains itself",
    "seed: 1\nseed: 2": "line 2: seed is given twice",
    # arguments of functions
    function("{target: 2020-01-01}"): "config: rewards.f.arguments.target: YAML reads this as date",
    function("{target: !!set {a, b}}"): "config: rewards.f.arguments.target: YAML reads this as set",
    function("{target: !!binary aGVs}"): "config: rewards.f.arguments.target: YAML reads this as bytes",
    function('{target: "a\\ud800"}'): "config: rewards.f.arguments.target: has text that is not Unicode",
    function("{target: .nan}"): "config: rewards.f.arguments.target: nan is not a finite number",
    function(
        "{target: abc}"
    ): "arguments.target: 'abc' is text, and prefline/rewards/functions.py:length takes",
    function("{target: 'inf'}"): "arguments.target: 'inf' is text, and",
    function("{1: 2}"): "config: rewards.f.arguments: YAML reads the name 1 as int;",
    function("{target: {1: 2}}"): "config: rewards.f.arguments.target: YAML reads the name 1 as int;",
    function("null"): "config: rewards.f.arguments: ",
    function("[1]"): "config: rewards.f.arguments: ",
    function("{messages: a}"): "does not take 'messages'",
    function(
        "{pattern: 1e-3}", "regex"
    ): "arguments.pattern: YAML reads 1e-3 as text; write 0.001 for the number",
    function("{pattern: [a, {b: 1.0e5}]}", "regex"): "arguments.pattern: YAML reads 1.0e5 as text",
    # addresses
    url("abc"): "config: endpoints.e.urls.0: 'abc' does not begin with http:// or https://",
    url("'ftp://a/v1'"): "does not begin with http:// or https://",
    url("'file:///etc/passwd'"): "does not begin with http:// or https://",
    **{
        url(f"'{one}'"): "names no server"
        for one in ("http://", "http:///v1", "http://.h/v1", "http://h:0/v1")
    },
    **{
        url(f"'{one}'"): "has a blank or a brace" for one in ("http://a b/v1", " http://h/v1", "http://h/{x}")
    },
    **{
        url(f"'{one}'"): "is not an address: "
        for one in ("http://h:99999/v1", "http://h:abc/v1", "http://[::1/v1")
    },
    **{url(f"'http://{one}'"): "has no user or key in it" for one in ("u:p@h/v1", "h/v1?x=1", "h/v1#x")},
    **{url(f"'http://h/v1{one}'"): "continues after /v1" for one in ("/completions", "/chat/completions/")},
    **{url(one): "config: endpoints.e.urls.0: " for one in ("1", "null", "[]")},
    url(""): "config: endpoints.e.urls: [] should be non-empty",
    # what is of another kind than it should be
    **{f"{one}: null": f"config: {one}: " for one in ("rewards", "mt_bench", "train", "models", "endpoints")},
    **{f"{one}: {{f: {{kind: [x]}}}}": f"config: {one}.f" for one in ("rewards", "benchmarks", "endpoints")},
    **{
        f"{one}: {{f: 3}}": f"config: {one}.f: "
        for one in ("rewards", "benchmarks", "endpoints", "runs", "models")
    },
    **{
        f"mt_bench: {{judge: {one}}}": "config: mt_bench.judge"
        for one in ("[[a]]", "{a: b}", "3", "[]", "null")
    },
    **{
        f"runs: {{dpo: {{loss_type: {one}}}}}": "config: runs.dpo.loss_type"
        for one in ("[]", "{}", "[1]", "3", "no")
    },
    "training_defaults: {peft: {target_modules: []}}": "config: training_defaults.peft",
    "generate: {engine: server, endpoint: e}": "config: generate.endpoint names 'e', which `endpoints` lacks",
}


def read(file):
    """What the rules make of an overlay (Path): what Snakemake gives them, checked as they check it."""
    config = copy.deepcopy(DEFAULT)
    update_config(config, yaml.safe_load(file.read_text(encoding="utf-8-sig").replace("\t", " ")) or {})
    checked = configuration.load(config, [file, "config.yaml"])
    named_files.check(named_files.used(checked))
    return checked


def test_there_are_enough_of_them():
    assert len(VALID) + len(REFUSED) > 120


@pytest.mark.parametrize("text", VALID)
def test_a_valid_overlay_is_one_that_becomes_parameters(tmp_path, text):
    (tmp_path / "mine.yaml").write_text(text, encoding="utf-8")
    json.dumps(read(tmp_path / "mine.yaml"), allow_nan=False)


@pytest.mark.parametrize(("text", "sentence"), REFUSED.items())
def test_a_mistaken_overlay_is_one_sentence(tmp_path, text, sentence):
    (tmp_path / "mine.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(InputError) as error:
        read(tmp_path / "mine.yaml")
    said = str(error.value)
    assert sentence in said
    assert len(said) < 900 and "\n" not in said


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("prompts:\n\tnum_prompts: 3", "line 2: YAML cannot read this: "),
        ("seed: [1", "line 1: YAML cannot read this: "),
        ("seed: \x07", "YAML cannot read this: "),
        ("[" * 100_000, "YAML cannot read this: "),
        (b"seed: \xff", "is not coded in UTF-8"),
        ("---\nseed: 1\n---\nseed: 2", "line 3: YAML cannot read this: "),
    ],
    ids=["tab", "open", "bell", "deep", "latin", "two"],
)
def test_a_file_that_is_no_yaml_is_one_sentence(tmp_path, content, sentence):
    """Where Snakemake has let it pass."""
    file = tmp_path / "mine.yaml"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(InputError) as error:
        configuration.load(DEFAULT, [file, "config.yaml"])
    assert sentence in str(error.value) and "\n" not in str(error.value)


SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.dates()
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=4) | st.integers(), inner, max_size=2)
    ),
    max_leaves=3,
)
SECTIONS = [one for one in DEFAULT if isinstance(DEFAULT[one], dict)]
PATHS = [(one,) for one in DEFAULT] + [(one, key) for one in SECTIONS for key in DEFAULT[one]]


@given(st.sampled_from(PATHS), VALUES)
@settings(max_examples=150, deadline=None)
def test_whatever_a_key_holds_is_taken_or_one_sentence(path, value):
    config = copy.deepcopy(DEFAULT)
    overlay = value
    for key in reversed(path):
        overlay = {key: overlay}
    update_config(config, overlay)
    try:
        checked = configuration.load(config)
        named_files.check(named_files.used(checked))
    except InputError as error:
        assert "\n" not in str(error)
