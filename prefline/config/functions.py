"""Functions that the config names as FILE.py:NAME: rewards and losses of the user's own.

The workflow reads from the file's text what a function takes, and checks the config's arguments against it.
Only jobs run the file. There, relative imports reach up to the project's folder, and a module beside the file
is found by its bare name, unless an installed one has that name.
"""

import ast
import contextlib
import difflib
import functools
import hashlib
import importlib
import importlib.util
import signal
import sys
import traceback
import types
from pathlib import Path

from prefline import files
from prefline.errors import InputError
from prefline.provenance import imports

# The status with which a training that is stopped ends (SystemExit), whatever it is running.
TERMINATED = 128 + signal.SIGTERM


def file_of(name):
    """The path (str) in FILE.py:NAME."""
    return name.rpartition(":")[0]


def parameters(name, positional):
    """What a function FILE.py:NAME takes by name: ({name: whether it has a default}, whether any other name).

    positional: names of what it is given before. Raises InputError if there is no such function, or it does
    not take these. Nothing is run.
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


def check(names, positional, key, arguments, elsewhere=()):
    """Raise InputError unless each function of `names` (FILE.py:NAME) can be called with its arguments.

    positional: as `parameters` takes it; arguments: dict, the config's at `key`, for all functions that take
    their names; elsewhere: names of arguments that have keys of their own in the config.
    """
    taken, any_name = {}, False
    for name in names:
        own, open_ended = parameters(name, positional)
        missing = [arg for arg, default in own.items() if not default and arg not in {*arguments, *elsewhere}]
        if missing:
            raise InputError(f"{key} lacks {missing[0]!r}, which {name} takes")
        taken, any_name = taken | own, any_name or open_ended
    known = [argument for argument in taken if argument not in elsewhere]
    for argument in arguments:
        if argument in elsewhere:
            raise InputError(f"{key}: {argument} is a key beside {key}; move it there")
        if argument not in known and not any_name:
            near = difflib.get_close_matches(argument, known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known) or 'none'}"
            raise InputError(f"{key}: {' and '.join(names)} does not take {argument!r}; {hint}")


def load(name):
    """The function FILE.py:NAME, to be called; its file is run once in a process.

    What the file or the function raises, exit() too, becomes an InputError with file and line.
    """
    path, function = file_of(name), _definition(name).name
    modules = {Path(module).resolve(): module for module in imports.modules_of(path)}
    with _named(name, modules):
        found = getattr(_module(Path(path).resolve()), function, None)
    if not callable(found):
        raise InputError(f"{name} is {found!r} once the file has run, and no function")

    @functools.wraps(found)
    def call(*args, **arguments):
        with _named(name, modules):
            return found(*args, **arguments)

    return call


def _definition(name):
    """The ast.FunctionDef of FILE.py:NAME at the top level of its file; InputError if there is none."""
    path, _, function = name.rpartition(":")
    if mistake := files.mistake(Path(path), "file"):
        raise InputError(mistake)
    found = {node.name: node for node in imports.tree(path).body if isinstance(node, ast.FunctionDef)}
    if function not in found:
        near = difflib.get_close_matches(function, found, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"it defines {', '.join(found) or 'none'}"
        raise InputError(f"{path} has no function {function!r}; {hint}")
    return found[function]


@contextlib.contextmanager
def _named(name, modules):
    """Make an exception an InputError that names the line of `modules` ({Path: name}) it comes from."""
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


def _module(path):
    """The module of a file (resolved Path), under a name in sys.modules that lets it import its siblings."""
    root = Path.cwd().resolve()
    if not path.is_relative_to(root) or "." in "".join(path.relative_to(root).parent.parts):
        root = path.parent
    folders = path.relative_to(root).parent.parts
    package = "own_" + hashlib.sha256(str(root).encode()).hexdigest()[:8]
    if folders[:1] in [(package,) for package in imports.PACKAGES]:
        package, *folders = folders
    elif package not in sys.modules:
        sys.modules[package] = types.ModuleType(package)
        sys.modules[package].__path__ = [str(root)]
    sys.path += [folder for folder in map(str, (root, path.parent)) if folder not in sys.path]
    importlib.invalidate_caches()
    package = importlib.import_module(".".join([package, *folders])).__name__
    name = f"{package}.{path.stem.replace('.', '_')}"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, path)
        sys.modules[name] = importlib.util.module_from_spec(spec)
        try:
            spec.loader.exec_module(sys.modules[name])
        except BaseException:
            del sys.modules[name]
            raise
    return sys.modules[name]
