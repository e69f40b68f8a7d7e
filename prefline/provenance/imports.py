"""What code a script's results depend on: its own and that of the project's modules it imports.

A file of the project is followed into PACKAGES. A file of the user's, which the config names
(prefline/config/functions.py), is followed to any module in the project's folder or beside the file; what is
installed counts by its version.
"""

import ast
import functools
import hashlib
from pathlib import Path

from prefline.errors import InputError

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
        if path not in found:
            found.add(path)
            waiting += _imported(path)
    return sorted(str(path) for path in found)


def own_modules(*files):
    """Paths (list of str) of the user's files and of the modules that they import, without the project's."""
    given = {str(Path(file)) for file in files}
    found = {path for file in files for path in modules_of(file) if not _is_projects(Path(path))}
    return sorted(given | found)


def code_hash(script):
    """Hexadecimal name (str) of what `script` and its modules do, whatever their comments and layout.

    Equal on all versions of Python whose grammar reads the code alike.
    """
    parts = [f"{path} {_text_hash(_text(path), path)}" for path in modules_of(script)]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:32]


def code_params(*files):
    """Files of code and what they do, as params (list of str) that Snakemake compares and lineage reads."""
    return [f"code {file} {code_hash(file)}" for file in files]


def tree(path):
    """The syntax tree (ast.Module) of a Python file; InputError, with file and line, if it has none."""
    return _parsed(_text(path), str(path))


def _text(path):
    try:
        return Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read as Python code: {error}") from None


def _parsed(text, path):
    try:
        return ast.parse(text, path)
    except (SyntaxError, ValueError) as error:  # ValueError: of a null byte
        line = f", line {error.lineno}" if getattr(error, "lineno", None) else ""
        raise InputError(f"{path}{line} is no Python code: {getattr(error, 'msg', error)}") from None


@functools.cache
def _text_hash(text, path):
    code = _parsed(text, path)
    for node in ast.walk(code):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)) and (
            ast.get_docstring(node, clean=False) is not None
        ):
            del node.body[0]
    return hashlib.sha256(repr(_plain(code)).encode()).hexdigest()


def _plain(node):
    """A syntax tree as nested tuples. Empty fields are left out: each version of Python adds some."""
    if isinstance(node, ast.AST):
        fields = [(name, _plain(value)) for name, value in ast.iter_fields(node) if value not in (None, [])]
        return (type(node).__name__, *fields)
    if isinstance(node, list):
        return tuple(_plain(item) for item in node)
    return node


def _imported(path):
    """The files (set of Path) that the import statements of a file name, with the packages they are in."""
    found = set()
    if not _is_projects(path):  # packages that a file of the user's is in run before it
        found |= {folder / "__init__.py" for folder in path.parents}
    for folder, name in _names(_text(path), path):
        stem = folder
        for part in name.split("."):
            stem /= part
            found |= {stem.with_name(f"{part}.py"), stem / "__init__.py"}
    return {file for file in found if file.is_file() and (file.stem != "__init__" or file.stat().st_size)}


@functools.cache
def _names(text, path):
    """[(folder, dotted name of what may be a module there)] of the import statements in a file's text."""
    found = []
    for node in ast.walk(_parsed(text, str(path))):
        if isinstance(node, ast.Import):
            level, names = 0, [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            level = node.level
            names = [".".join(filter(None, (node.module, alias.name))) for alias in node.names]
        else:
            continue
        if level:
            folders = path.parents[level - 1 : level]
        elif _is_projects(path):
            folders, names = [Path()], [name for name in names if name.split(".")[0] in PACKAGES]
        else:
            folders = [Path(), path.parent]
        found += [(folder, name) for folder in folders for name in names]
    return found


def _is_projects(path):
    return path.parts[0] in PACKAGES
