"""Flags made from the schema: what a rule writes, a script reads back; what is wrong is named."""

import argparse
import dataclasses
import shlex

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prefline.config import schema, section

TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)
NUMBERS = st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(10**12), 10**12)
VALUES = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXTS, lambda inner: st.lists(inner, max_size=3), max_leaves=5
)
ANYTHING = {"type": ["string", "integer", "number", "boolean", "null", "array", "object"]}


def parsed(path, *words, keys=(), **more):
    parser = argparse.ArgumentParser()
    section.add(parser, path, *keys, **more)
    return vars(parser.parse_args(words))


def leaves(path, of):
    """Every (section, key, schema) of the config that is no section itself."""
    for key, one in schema.properties(of).items():
        if schema.properties(one):
            yield from leaves(f"{path}.{key}" if path else key, one)
        elif path:
            yield path, key, one


@given(st.dictionaries(st.from_regex(r"[a-z][a-z_]{0,8}", fullmatch=True), VALUES, max_size=4))
def test_a_script_reads_back_what_a_rule_wrote(values):
    words = shlex.split(section.flags(values))
    parser = argparse.ArgumentParser(allow_abbrev=False)
    for key in values:
        parser.add_argument(f"--{key.replace('_', '-')}", dest=f"_{key}", type=section.reader(ANYTHING))
    read = vars(parser.parse_args(words))
    assert {key: read[f"_{key}"] for key in values} == values


@given(TEXTS)
def test_a_text_that_looks_like_a_number_stays_a_text(text):
    written = shlex.split(section.flags({"a": text}))[-1].removeprefix("--a=")
    assert section.reader({"type": ["string", "null"]})(written) == text


def test_every_key_of_the_config_is_a_flag_with_its_help():
    found = list(leaves("", schema.whole()))
    assert len(found) > 100
    for path, key, one in found:
        parser = argparse.ArgumentParser()
        section.add(parser, path, key)
        assert " ".join(one["description"].split())[:20] in " ".join(parser.format_help().split()), (
            path,
            key,
        )


def test_a_section_gives_its_own_flags_and_all_of_them():
    rank = {"strategy": "max_min", "length_penalty": 0.0, "min_margin": 0.25, "truncated": "drop"}
    assert parsed("rank", *shlex.split(section.flags(rank))) == rank
    assert parsed("seed", "--seed", "3") == {"seed": 3}
    assert parsed("generate", "--top-k", "4", keys=["top_k"]) == {"top_k": 4}


def test_a_flag_that_may_be_left_out_is_then_no_attribute():
    assert parsed("rank", keys=["min_margin"], optional=["min_margin"]) == {}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--strategy", "max_mn"], "'max_mn' is none of max_min, max_second, max_random, random"),
        (["--min-margin", "much"], "'much' is not of the type number"),
        (["--min-margin", "-1"], "-1 must be at least 0"),
        (["--min-margin", "NaN"], "'NaN' is not of the type number"),
        ([], "the following arguments are required"),
    ],
)
def test_a_wrong_flag_is_one_sentence(words, said, capsys):
    with pytest.raises(SystemExit):
        parsed("rank", *words, keys=["strategy", "min_margin"])
    assert said in capsys.readouterr().err


def test_a_section_or_key_that_the_schema_lacks_is_an_error():
    for path, keys in (("ranking", ()), ("rank", ("max_margin",))):
        with pytest.raises(KeyError):
            parsed(path, keys=keys)


def test_a_dataclass_takes_the_values_of_its_fields_alone():
    @dataclasses.dataclass
    class Some:
        a: int
        b: str

    assert section.pick(Some, {"a": 1, "b": "x", "c": None}) == Some(1, "x")
