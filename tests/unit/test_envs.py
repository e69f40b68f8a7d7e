"""The environments of the rules pin what the lock pins."""

from pathlib import Path

import pytest
import yaml

LOCK = dict(
    line.split(" ;")[0].lower().split("==")
    for line in Path("envs/cpu.lock.txt").read_text().splitlines()
    if line and not line.startswith("#")
)
LOCK["torch"] = Path("Makefile").read_text().split("TORCH := torch==")[1].split("+")[0]


@pytest.mark.parametrize("path", sorted(Path("envs").glob("*.yaml")), ids=lambda path: path.stem)
def test_pins_agree_with_the_lock(path):
    dependencies = yaml.safe_load(path.read_text())["dependencies"]
    pip = next(entry["pip"] for entry in dependencies if isinstance(entry, dict))
    assert pip
    for requirement in pip:
        name, version = requirement.split("==")
        assert LOCK[name.lower()] == version, f"{path}: {requirement}"


def test_every_rule_names_an_environment_that_exists():
    for rules in Path("rules").glob("*.smk"):
        for line in rules.read_text().splitlines():
            if '"../envs/' in line:
                assert (rules.parent / line.strip().strip('",')).resolve().is_file(), f"{rules}: {line}"
