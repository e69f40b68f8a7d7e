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


_FOUND = {}  # {folder: {name: module}} of what the user's files in it have imported by bare names


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
    file = Path(path).resolve()
    importlib.invalidate_caches()
    with _named(name, modules), _beside(file):
        found = getattr(_module(file), function, None)
    if not callable(found):
        raise InputError(f"{name} is {found!r} once the file has run, and no function")

    @functools.wraps(found)
    def call(*args, **arguments):
        with _named(name, modules), _beside(file):
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


@contextlib.contextmanager
def _beside(path):
    """Have bare imports find what is beside a file (resolved Path), then what is in the project's folder.

    An installed module of that name comes first. What a file finds is its own: a `helper.py` in another
    folder is another module.
    """
    root, search = Path.cwd().resolve(), sys.path[:]
    places = (path.parent, root)
    sys.path[:] = [folder for folder in search if folder not in ("", str(root))] + [*map(str, places)]
    others = _take(places)
    sys.modules.update(_FOUND.get(path.parent, {}))
    try:
        yield
    finally:
        sys.path[:] = search
        _FOUND[path.parent] = _take(places)
        sys.modules.update(others)


def _take(places):
    """Take the modules that bare names find in `places` (folders), and theirs, out of sys.modules: a dict."""
    tops = {
        name for name in _names(places) & sys.modules.keys() if _files(sys.modules[name]) & _of(places, name)
    }
    if not tops:
        return {}
    return {name: sys.modules.pop(name) for name in list(sys.modules) if name.partition(".")[0] in tops}


@functools.cache
def _names(places):
    """The bare names that modules in `places` can have; the project's own packages are everybody's."""
    return {child.stem for place in places for child in place.iterdir()} - set(imports.PACKAGES)


def _of(places, name):
    """The files and folders that a bare name can be of in `places`."""
    return {str(place / end) for place in places for end in (f"{name}.py", name, f"{name}/__init__.py")}


def _files(module):
    return {getattr(module, "__file__", None), *getattr(module, "__path__", ())}


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
