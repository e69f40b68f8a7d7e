"""The commands of the project: each says what it does before it does anything."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

FOLDERS = ("scripts", "tools", "docs", "measurements")
COMMANDS = [
    path
    for folder in FOLDERS
    for path in sorted(Path(folder).rglob("*.py"))
    if '__name__ == "__main__"' in path.read_text()
]
OF_PEOPLE = [path for path in COMMANDS if path.parts[0] in ("tools", "docs") or path.stem == "default_run"]


def modules_of(path):
    """The files of what a Python file imports by `from … import …`."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            yield from (Path(*node.module.split("."), f"{alias.name}.py") for alias in node.names)


@pytest.mark.parametrize("path", COMMANDS, ids=str)
def test_every_command_parses_its_words(path):
    """In its own text, or by a function that it imports."""
    files = [path, *filter(Path.is_file, modules_of(path))]
    assert any("parse_args(" in file.read_text() for file in files)


@pytest.mark.parametrize("path", OF_PEOPLE, ids=str)
def test_help_shows_what_a_command_is_for_and_does_nothing(path):
    module = ".".join(path.with_suffix("").parts)
    said = subprocess.run(
        [sys.executable, "-m", module, "--help"], capture_output=True, text=True, timeout=300, check=True
    ).stdout
    assert ast.get_docstring(ast.parse(path.read_text())).splitlines()[0] in said


def test_scripts_import_no_models_library_before_they_start():
    """So `--help` starts at once, and optional_packages hides what the libraries would import."""
    modules = [
        ".".join(path.with_suffix("").parts) for path in COMMANDS if path.parts[0] in ("scripts", "tools")
    ]
    program = f"""
import importlib, sys
for module in {modules}:
    importlib.import_module(module)
    loaded = {{"torch", "transformers", "datasets", "pandas", "scipy", "vllm"}} & set(sys.modules)
    assert not loaded, f"{{module}} imports {{loaded}}"
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=120)
