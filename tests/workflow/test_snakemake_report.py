"""Snakemake's own report holds the config, system prompts included: no text in it is more than text."""

import json
import shutil

import injections
from conftest import QUICK, snakemake


def test_no_text_of_the_config_ends_a_script_of_the_page(finished, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(finished, copy, symlinks=True)
    texts = [text for text in injections.HTML if text.isprintable()]
    (copy / "evil.yaml").write_text(json.dumps({"vibe_check": {"system": "\n".join(texts)}}))
    page = {}
    for name, overlay in (("plain", []), ("evil", ["evil.yaml"])):
        snakemake(copy, *QUICK, *overlay, "--report", f"{name}.html")
        page[name] = (copy / f"{name}.html").read_text()
    assert "\\u003cscript>window.owned=1" in page["evil"], "it is there, as text"
    for tag in ("<script", "</script", "<!--", "<iframe", "<svg"):
        assert page["evil"].count(tag) == page["plain"].count(tag), tag
