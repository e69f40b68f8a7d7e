"""The card of published pairs tells where they come from, and nothing in it is markup of others."""

import copy
import json

import pytest
import yaml
from configs import DEFAULT
from huggingface_hub import DatasetCard
from injections import ALL
from markdown_it import MarkdownIt

from prefline import files
from prefline.config import loading as configuration
from prefline.data import tables
from scripts.publish import write_pairs_card

RANKED = {
    "splits": {
        "train": {
            "kept": 1400,
            "prompts": 1500,
            "dropped": {"margin": 90, "too_few": 10, "identical_text": 0},
        },
        "test": {"kept": 60, "prompts": 60, "dropped": {"margin": 0}},
    }
}
GIVEN = {"kept": {"train": 30, "test": 5}, "dropped": {"different_prompts": 2}}


@pytest.fixture
def written(tmp_path):
    """written(counts, sampled, **sections) -> the card of pairs, as the rule has it written."""

    def write(counts, sampled, **sections):
        config = configuration.load({**copy.deepcopy(DEFAULT), **sections})
        flags = ["--policy", "dpo-1", "--config", json.dumps(config), "--sampled", *sampled]
        for name, found in counts.items():
            folder = tmp_path / name
            folder.mkdir(exist_ok=True)
            (folder / "preferences.parquet").write_bytes(name.encode())
            files.write_json(folder / "preferences.json", found)
        for flag, suffix in (("--pairs", "parquet"), ("--counts", "json")):
            flags += [flag, *[f"{tmp_path}/{name}/preferences.{suffix}" for name in counts]]
        write_pairs_card.main([*flags, "--out", f"{tmp_path}/card.md"])
        return (tmp_path / "card.md").read_text()

    return write


def test_a_card_of_sampled_pairs_has_sources_counts_and_filters(written):
    text = written(
        {"sft": RANKED}, ["sft"], publish={**DEFAULT["publish"], "namespace": "org", "license": "mit"}
    )
    data = DatasetCard(text).data
    assert data.license == "mit" and data.size_categories == ["1K<n<10K"]
    assert "| `sft.parquet` | 1400 | 60 | completions of `sft` |" in text
    assert "| `sft.parquet` | train | 1400 | 90 margin, 10 too few |" in text
    assert "| `sft.parquet` | test | 60 | nothing |" in text
    assert "- Prompts: `data/world/prompts.jsonl`; those that share 8 words" in text
    assert "Reward `reward_model`, weight 1.0: classifier, `reward_model`." in text
    assert 'load_dataset("org/prefline-dpo-1-pairs"' in text and "Given pairs" not in text


def test_a_card_of_given_pairs_names_their_source_but_no_folder_of_this_machine(written):
    prompts = copy.deepcopy(DEFAULT["prompts"])
    prompts["preferences"] |= {"use": True, "source": "/home/somebody/secret-project/pairs.jsonl"}
    text = written({"sft": GIVEN, "dpo-1": RANKED}, ["dpo-1"], prompts=prompts)
    assert "| `sft.parquet` | 30 | 5 | given pairs |" in text and "completions of `dpo-1`" in text
    assert "- Given pairs: `…/pairs.jsonl`." in text and "secret-project" not in text
    text = written({"sft": GIVEN}, [], prompts=prompts)
    assert "completions of each prompt" not in text and "chosen_reward: null" in text


def test_the_config_that_a_card_shows_is_one(written):
    [block] = [
        token.content
        for token in MarkdownIt("commonmark").parse(written({"sft": RANKED}, ["sft"]))
        if token.type == "fence" and token.info == "yaml"
    ]
    shown, config = yaml.safe_load(block), copy.deepcopy(DEFAULT)
    config["prompts"]["preferences"] |= shown["prompts"]["preferences"]
    assert (
        configuration.load(config)["prompts"]["preferences"]["source"]
        == "hub:NAMESPACE/prefline-dpo-1-pairs@COMMIT#train"
    )
    assert set(config["prompts"]["preferences"]["columns"].values()) <= set(tables.PREFERENCES.names)


def test_a_card_describes_every_column():
    described = [name for names in write_pairs_card.COLUMNS for name in names.split(", ")]
    assert sorted(described) == sorted(tables.PREFERENCES.names)


def test_texts_of_others_are_inert(tmp_path):
    (tmp_path / "sft").mkdir()
    path = tmp_path / "sft/preferences.parquet"
    path.write_bytes(b"pairs")
    for text in ALL[:: max(1, len(ALL) // 40)]:
        config = configuration.load(copy.deepcopy(DEFAULT))
        config["prompts"]["source"] = text
        counts = {"kept": {"train": 1, "test": 1}, "dropped": {text: 1}}
        made = write_pairs_card.card("dpo-1", [path], [counts], ["sft"], config)
        blocks = MarkdownIt().enable("table").parse(made.split("\n---\n", 1)[1])
        found = [one for block in blocks for one in [block, *(block.children or [])]]
        assert not {one.type for one in found} & {"image", "link_open", "html_block"}, text
        markup = {one.content for one in found if one.type == "html_inline"}
        assert markup <= {"<code>", "</code>", "<br>"}, text
