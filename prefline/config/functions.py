"""Check and load functions that the config names as FILE.py:NAME: the user's rewards and losses.

The workflow reads a function's arguments from the file's text and compares the config's arguments with
them. Only jobs run the file. There, relative imports reach up to the project's folder. A bare import finds
the module beside the file, unless an installed module has that name.
"""

import ast
import contextlib
import difflib
import functools
import hashlib
import importlib
import importlib.machinery
import importlib.util
import math
import re
import signal
import sys
import traceback
import types
from pathlib import Path

from prefline import paths
from prefline.errors import InputError
from prefline.provenance import imports

# Exit status (SystemExit) of a training that is told to stop, also while a user's function runs.
TERMINATED = 128 + signal.SIGTERM


# A number that YAML 1.1 reads as text: without a dot, or without a sign of the exponent.
EXPONENT = re.compile(r"[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)[eE][-+]?[0-9]+")

_FOUND = {}  # {folder: {name: module}}: modules that the user's files in a folder imported by bare names


def file_of(name):
    """Return the path (str) in FILE.py:NAME."""
    return name.rpartition(":")[0]


def parameters(name, positional):
    """Return the keyword arguments of a function FILE.py:NAME: ({name: has a default}, takes any other).

    positional: names of its positional arguments. Raises InputError if there is no such function, or if it
    does not take these. Runs nothing.
    """
    args = _definition(name).args
    ordered = [*args.posonlyargs, *args.args]
    few = len(ordered) < len(positional) and not args.vararg
    if few or len(args.posonlyargs) > len(positional):
        raise InputError(f"{name} must take {', '.join(positional)} first, and everything else by name")
    optional = ordered[len(ordered) - len(args.defaults) :]
    optional += [arg for arg, default in zip(args.kwonlyargs, args.kw_defaults, strict=True) if default]
    named = [*ordered[len(positional) :], *args.kwonlyargs]
    return {arg.arg: arg in optional for arg in named}, args.kwarg is not None


def needs(name, argument):
    """Return whether a function FILE.py:NAME needs an argument that may be None: `reference: str`."""
    args = _definition(name).args
    named = [arg for arg in (*args.posonlyargs, *args.args) if arg.arg == argument]
    return any(isinstance(arg.annotation, ast.Name) and arg.annotation.id == "str" for arg in named)


def check(names, positional, key, arguments, elsewhere=()):
    """Raise InputError unless each function of `names` (FILE.py:NAME) can be called with its arguments.

    positional: as in `parameters`; arguments: dict, the value of the config's `key`: each goes to all
    functions that take its name; elsewhere: names of arguments that have their own keys in the config.
    """
    taken, any_name = {}, False
    for name in names:
        own, open_ended = parameters(name, positional)
        missing = [arg for arg, default in own.items() if not default and arg not in {*arguments, *elsewhere}]
        if missing:
            raise InputError(f"{key} lacks {missing[0]!r}, which {name} takes")
        taken, any_name = taken | own, any_name or open_ended
        _check_texts(name, key, arguments)
    known = [argument for argument in taken if argument not in elsewhere]
    for argument in arguments:
        if argument in elsewhere:
            raise InputError(f"{key}: {argument} is a key beside {key}; move it there")
        if argument not in known and not any_name:
            near = difflib.get_close_matches(argument, known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known) or 'none'}"
            raise InputError(f"{key}: {' and '.join(names)} does not take {argument!r}; {hint}")


def _check_texts(name, key, arguments):
    """Raise InputError for a text in a function's arguments (dict) that should be a number or looks like one.

    YAML reads 1e-3, without a dot, as text. Where the function takes a number, `load` converts it.
    """
    numbers, texts = _numeric(_definition(name).args)
    for argument, value in arguments.items():
        if argument in numbers and isinstance(value, str):
            try:
                _number(value)
            except ValueError:
                raise InputError(
                    f"{key}.{argument}: {value!r:.60} is text, and {name} takes a number"
                ) from None
        elif argument not in texts and (text := _like_a_number(value)):
            raise InputError(
                f"{key}.{argument}: YAML reads {text} as text; write {float(text)!r} for the number, or "
                f"annotate {argument} in {name}, such as {argument}: float or {argument}: str"
            )


def _like_a_number(value):
    """Return the first text (str) that looks like a number, in a value or its lists and dicts; or None."""
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    if isinstance(value, str) and EXPONENT.fullmatch(value):
        return value
    return next(filter(None, map(_like_a_number, inner)), None)


def load(name):
    """Return a wrapper of the function FILE.py:NAME; its file runs once in a process.

    An exception of the file or the function, also exit(), becomes an InputError with file and line.
    """
    path, _, function = name.rpartition(":")
    numbers, _ = _numeric(_definition(name).args)
    modules = {Path(module).resolve(): module for module in imports.modules_of(path)}
    file = Path(path).resolve()
    importlib.invalidate_caches()
    imports.check_planned(path)
    with _named(name, modules), _beside(file):
        found = getattr(_module(file), function, None)
    imports.check_planned(path)  # it was not edited while it ran
    if not callable(found):
        raise InputError(f"{name} is {found!r} once the file has run, not a function; define it with def")

    @functools.wraps(found)
    def call(*args, **arguments):
        for argument, value in arguments.items():
            if argument in numbers and isinstance(value, str):
                arguments[argument] = _number(value)
        with _named(name, modules), _beside(file):
            return found(*args, **arguments)

    return call


def _definition(name):
    """Return the ast.FunctionDef or ast.Lambda of FILE.py:NAME; raise InputError without one."""
    path, _, function = name.rpartition(":")
    if mistake := paths.mistake(path, "file"):
        raise InputError(mistake)
    bound = dict(_bindings(imports.tree(path).body))
    if function not in bound:
        defined = [one for one, node in bound.items() if isinstance(node, (ast.FunctionDef, ast.Lambda))]
        near = difflib.get_close_matches(function, defined, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"it defines {', '.join(defined) or 'none'}"
        raise InputError(f"{path} has no function {function!r}; {hint}")
    node, seen = bound[function], {function}
    while isinstance(node, ast.Name) and node.id in bound.keys() - seen:  # f = g
        seen.add(node.id)
        node = bound[node.id]
    if not isinstance(node, (ast.FunctionDef, ast.Lambda)):
        wrong = next((words for kind, words in NO_FUNCTIONS.items() if isinstance(node, kind)), MADE)
        raise InputError(f"{path}, line {node.lineno}: {function} {wrong}")
    return node


# Reasons why a name's value cannot be called as a function with known arguments.
CALLS = "write `def NAME(…)` at the top of the file that calls it"
NO_FUNCTIONS = {
    ast.AsyncFunctionDef: "is async, but is called as a plain function; write def instead of async def",
    ast.ClassDef: f"is a class; {CALLS}",
    ast.Import | ast.ImportFrom: f"is imported; name the file that defines it, or {CALLS}",
    ast.stmt: "is defined under a condition or in a loop; define it at the top of the file",
}
MADE = f"is made while the file runs, so its arguments cannot be read; {CALLS}"


def _bindings(body):
    """Yield (name, ast node that it is bound to) for the names that statements bind, in order.

    For names within if, try, with and loops the node is the whole statement, since its branch is not known.
    """
    for node in body:
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            yield node.name, node
        elif isinstance(node, (ast.Assign, ast.AnnAssign)):
            for target in getattr(node, "targets", [getattr(node, "target", None)]):
                if isinstance(target, ast.Name) and node.value is not None:
                    yield target.id, node.value
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            for alias in node.names:
                yield alias.asname or alias.name, node
        else:
            for part in ("body", "orelse", "handlers", "finalbody"):
                for name, _ in _bindings(getattr(node, part, [])):
                    yield name, node


def _numeric(args):
    """Return the names (two sets of str) of a function's arguments (ast.arguments): numbers, texts.

    The annotation decides, or else the default.
    """
    ordered = [*args.posonlyargs, *args.args]
    defaults = [None] * (len(ordered) - len(args.defaults)) + args.defaults
    by_name = zip(args.kwonlyargs, args.kw_defaults, strict=True)
    numbers, texts = set(), set()
    for arg, default in [*zip(ordered, defaults, strict=True), *by_name]:
        words = set(re.findall(r"\w+", ast.unparse(arg.annotation))) if arg.annotation else set()
        with contextlib.suppress(ValueError, TypeError):
            if not words and default is not None:
                words = {type(ast.literal_eval(default)).__name__}
        if "str" in words:
            texts.add(arg.arg)
        elif words & {"int", "float"}:
            numbers.add(arg.arg)
    return numbers, texts


def _number(text):
    """Return the finite number (int or float) in a text; raise ValueError if it has none."""
    with contextlib.suppress(ValueError):
        return int(text)
    if not math.isfinite(float(text)):
        raise ValueError(text)
    return float(text)


@contextlib.contextmanager
def _named(name, modules):
    """Turn an exception into an InputError that names its line in `modules` ({Path: name})."""
    try:
        yield
    except (Exception, SystemExit) as error:
        if getattr(error, "code", None) == TERMINATED:
            raise
        lines = [
            f"{modules[Path(frame.filename).resolve()]}, line {frame.lineno}"
            for frame in traceback.extract_tb(error.__traceback__)
            if Path(frame.filename).resolve() in modules
        ]
        said = " ".join(f"{type(error).__name__}: {error}".split())
        raise InputError(f"{lines[-1] if lines else name}: {said}") from error


@contextlib.contextmanager
def _beside(path):
    """Let bare imports find modules beside a file (resolved Path), then those in the project's folder.

    An installed module of that name comes first. Each folder has its own modules: a `helper.py` in another
    folder is another module.
    """
    root, search = Path.cwd().resolve(), sys.path[:]
    places = (path.parent, root)
    sys.path[:] = [folder for folder in search if folder not in ("", str(root))] + [*map(str, places)]
    others = _take(places)
    sys.modules.update(_FOUND.get(path.parent, {}))
    # Python takes an old .pyc for a file that was edited within the same second to the same size.
    writes, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    try:
        yield
    finally:
        sys.path[:], sys.dont_write_bytecode = search, writes
        _FOUND[path.parent] = _take(places)
        sys.modules.update(others)


def _take(places):
    """Remove from sys.modules what bare names find in `places` (folders), and return it (dict)."""
    tops = {
        name for name in _names(places) & sys.modules.keys() if _files(sys.modules[name]) & _of(places, name)
    }
    if not tops:
        return {}
    return {name: sys.modules.pop(name) for name in list(sys.modules) if name.partition(".")[0] in tops}


@functools.cache
def _names(places):
    """Return the bare names that modules in `places` can have, without the project's packages."""
    return {child.stem for place in places for child in place.iterdir()} - set(imports.PACKAGES)


def _of(places, name):
    """Return the files and folders in `places` that a bare name can mean."""
    return {str(place / end) for place in places for end in (f"{name}.py", name, f"{name}/__init__.py")}


def _files(module):
    return {getattr(module, "__file__", None), *getattr(module, "__path__", ())}


def _module(path):
    """Return the module of a file (resolved Path), in sys.modules so that it can import its siblings."""
    root = Path.cwd().resolve()
    if not path.is_relative_to(root) or "." in "".join(path.relative_to(root).parent.parts):
        root = path.parent
    folders = path.relative_to(root).parent.parts
    package = "own_" + hashlib.sha256(str(root).encode()).hexdigest()[:8]
    if folders[:1] in [(package,) for package in imports.PACKAGES]:
        path = imports.place(path.relative_to(root)).absolute()
        package, *folders = folders
    elif package not in sys.modules:
        sys.modules[package] = types.ModuleType(package)
        sys.modules[package].__path__ = [str(root)]
    package = importlib.import_module(".".join([package, *folders])).__name__
    name = f"{package}.{path.stem.replace('.', '_')}"
    if name not in sys.modules:
        # A link can lead to a file whose name has no .py, which DVC's cache has.
        loader = importlib.machinery.SourceFileLoader(name, str(path))
        spec = importlib.util.spec_from_file_location(name, path, loader=loader)
        sys.modules[name] = importlib.util.module_from_spec(spec)
        try:
            spec.loader.exec_module(sys.modules[name])
        except BaseException:
            del sys.modules[name]
            raise
    return sys.modules[name]
