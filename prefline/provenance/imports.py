"""Find the code that a script's results depend on: its own and that of the project modules it imports.

Imports of a project file are followed into PACKAGES. Imports of a user's file, which the config names
(prefline/config/functions.py), are followed to any module in the project's folder or beside the file.
Installed packages count by their versions.
"""

import ast
import contextlib
import functools
import hashlib
import json
import os
import tokenize
from pathlib import Path

from prefline import files
from prefline.errors import InputError

# Hashes and imports of code by its text, so that a start of Snakemake parses only files that are new to it.
KNOWN = Path(".snakemake/prefline_code.json")
# The project's own packages whose code a job may run.
PACKAGES = ("prefline", "scripts")
# Variables of jobs (plan.py): the folder that they import PACKAGES from, and the hashes of the user's files.
CODE, OWN_CODE = "PREFLINE_CODE", "PREFLINE_OWN_CODE"


def script(name):
    """Return path (str) of the script of this name: scripts/STEP/NAME.py."""
    (path,) = Path("scripts").glob(f"*/{name}.py")
    return str(path)


def modules_of(script, root=None, read=None):
    """Return the paths (sorted) of `script` and of all project modules that it imports, at any depth.

    Reads the import statements, also those inside functions; imports nothing. root: the folder with the
    project's packages, by default the one that this process imports them from. read: as `code_hash` takes it.
    """
    read = {} if read is None else read
    found, waiting = set(), [Path(script)]
    while waiting:
        path = waiting.pop()
        if path not in found:
            found.add(path)
            if path not in read:
                read[path] = _imported(path, root)
            waiting += read[path]
    return sorted(str(path) for path in found)


def own_modules(*files):
    """Return the paths (list of str) of the user's files and the user's modules that they import."""
    given = {str(Path(file)) for file in files}
    found = {path for file in files for path in modules_of(file) if not _is_projects(Path(path))}
    return sorted(given | found)


def code_hash(script, root=None, read=None):
    """Return a hash (hexadecimal str) of the code of `script` and its modules, without comments and layout.

    The hash is equal on all versions of Python that parse the code in the same way. root: as `modules_of`
    takes it. read: a dict in which this keeps what a file imports (by Path) and its hash (by str). With the
    same dict for several scripts a file is read once; no file may change in between.
    """
    read = {} if read is None else read
    parts = []
    for path in modules_of(script, root, read):
        if path not in read:
            read[path] = _facts(_text(place(path, root)), path)[0]
        parts.append(f"{path} {read[path]}")
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:32]


def param(file, code):
    """Return a file of code and its hash, as a param (str) for Snakemake and lineage."""
    return f"code {file} {code}"


def check_planned(file):
    """Raise InputError if the code of a user's file is not what was planned for this job."""
    planned = json.loads(os.environ.get(OWN_CODE, "{}")).get(str(file))
    if planned not in (None, code_hash(file)):
        raise InputError(
            f"{file}, or a module that it imports, changed since this run was planned; start it again, and "
            "the jobs that use it run with the new code"
        )


def tree(path):
    """Return the syntax tree (ast.Module) of a Python file; InputError, with the line, if it has none."""
    return _parsed(_text(path), str(path))


def _text(path):
    try:
        with tokenize.open(path) as file:  # in the encoding that its first lines or byte order mark name
            return file.read()
    except (OSError, SyntaxError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read as Python code: {error}") from None


def _parsed(text, path):
    try:
        return ast.parse(text, path)
    except (SyntaxError, ValueError) as error:  # ValueError: of a null byte
        line = f", line {error.lineno}" if getattr(error, "lineno", None) else ""
        raise InputError(f"{path}{line} is not Python code: {getattr(error, 'msg', error)}") from None


@functools.cache
def _facts(text, path):
    """Return (hash, imports as `_names` gives them) of the code `text` of the file `path` (str)."""
    key = hashlib.sha256(f"{path}\n{text}".encode()).hexdigest()
    found = _known().get(key)
    if found is None:
        found = _text_hash(text, path), [[str(folder), name] for folder, name in _names(text, Path(path))]
    _used[key] = found
    return found[0], found[1]


_used = {}


@functools.cache
def _known():
    with contextlib.suppress(OSError, ValueError):
        found = files.read_json(KNOWN)
        return found if isinstance(found, dict) else {}
    return {}


def save():
    """Save what is known of the code that was read, for the next start, if the folder is writable."""
    if _used.keys() != _known().keys():
        with contextlib.suppress(OSError):
            files.write_json(KNOWN, _used)


def _text_hash(text, path):
    code = _parsed(text, path)
    for node in ast.walk(code):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)) and (
            ast.get_docstring(node, clean=False) is not None
        ):
            del node.body[0]
    return hashlib.sha256(repr(_plain(code)).encode()).hexdigest()


def _plain(node):
    """Return a syntax tree as nested tuples, without empty fields: they differ between versions of Python."""
    if isinstance(node, ast.AST):
        fields = [(name, _plain(value)) for name, value in ast.iter_fields(node) if value not in (None, [])]
        return (type(node).__name__, *fields)
    if isinstance(node, list):
        return tuple(_plain(item) for item in node)
    return node


def place(path, root=None):
    """Return the place of the file `path` (Path): for PACKAGES in `root`, as `modules_of` takes it."""
    root = root or os.environ.get(CODE, "")
    return Path(root, path) if _is_projects(Path(path)) else Path(path)


def _imported(path, root):
    """Return the files (set of Path) that a file's import statements name, with their packages."""
    found = set()
    if not _is_projects(path):  # the packages that contain a user's file run before it
        found |= {folder / "__init__.py" for folder in path.parents}
    for folder, name in _facts(_text(place(path, root)), str(path))[1]:
        stem = Path(folder)
        for part in name.split("."):
            stem /= part
            found |= {stem.with_name(f"{part}.py"), stem / "__init__.py"}
    places = {file: place(file, root) for file in found}
    return {
        file
        for file, place in places.items()
        if place.is_file() and (file.stem != "__init__" or place.stat().st_size)
    }


def _names(text, path):
    """Return [(folder, dotted name of a possible module there)] of a file's import statements."""
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
