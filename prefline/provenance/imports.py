"""What code a script's results depend on: its own and that of the project's modules it imports."""

import ast
import functools
import hashlib
from pathlib import Path

# The project's own packages whose code a job may run.
PACKAGES = ("prefline", "scripts")


def script(name):
    """Path (str) of the script of this name: scripts/STEP/NAME.py."""
    (path,) = Path("scripts").glob(f"*/{name}.py")
    return str(path)


def modules_of(script):
    """Paths (sorted list of str) of `script` and of all modules of the project that it imports, at any depth.

    Read from the code's import statements, those inside functions included; nothing is imported.
    """
    found, waiting = set(), [Path(script)]
    while waiting:
        path = waiting.pop()
        if path in found:
            continue
        found.add(path)
        names = _imported(path.read_text(encoding="utf-8"), path)
        waiting += [module for name in names if (module := _module(name))]
    return sorted(str(path) for path in found)


def code_hash(script):
    """Hexadecimal name (str) of what `script` and its modules do, whatever their comments and layout.

    Equal on all versions of Python whose grammar reads the code alike.
    """
    parts = [f"{path} {_text_hash(Path(path).read_text(encoding='utf-8'))}" for path in modules_of(script)]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:32]


@functools.cache
def _text_hash(text):
    tree = ast.parse(text)
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)) and (
            ast.get_docstring(node, clean=False) is not None
        ):
            del node.body[0]
    return hashlib.sha256(repr(_plain(tree)).encode()).hexdigest()


def _plain(node):
    """A syntax tree as nested tuples. Empty fields are left out: each version of Python adds some."""
    if isinstance(node, ast.AST):
        fields = [(name, _plain(value)) for name, value in ast.iter_fields(node) if value not in (None, [])]
        return (type(node).__name__, *fields)
    if isinstance(node, list):
        return tuple(_plain(item) for item in node)
    return node


@functools.cache
def _imported(text, path):
    """What of the project the import statements of a file's text may name, with dots (list of str)."""
    found = []
    for node in ast.walk(ast.parse(text, str(path))):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            found += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    return [name for name in found if name.split(".")[0] in PACKAGES]


def _module(name):
    """The project's file that the name (prefline.files, say) is a module's or package's; else None."""
    path = Path(*name.split("."))
    candidates = (path.with_suffix(".py"), path / "__init__.py")
    return next((candidate for candidate in candidates if candidate.is_file()), None)
