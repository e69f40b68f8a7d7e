"""Which files a script's results depend on: itself and the project's modules it imports."""

import ast
from pathlib import Path


def modules_of(script):
    """Paths (sorted list of str) of `script` and of every module under scripts/ it imports, at any depth.

    Read from the code's import statements, those inside functions included; nothing is imported.
    """
    found, waiting = set(), [Path(script)]
    while waiting:
        path = waiting.pop()
        if path in found:
            continue
        found.add(path)
        tree = ast.parse(path.read_text(encoding="utf-8"), str(path))
        waiting += [module for node in ast.walk(tree) for module in _imported(node)]
    return sorted(str(path) for path in found)


def _imported(node):
    """The project's files that one import statement names."""
    if isinstance(node, ast.Import):
        names = [alias.name for alias in node.names]
    elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
        names = [node.module] + [f"{node.module}.{alias.name}" for alias in node.names]
    else:
        return
    for name in names:
        if name.split(".")[0] != "scripts":
            continue
        path = Path(*name.split("."))
        if path.with_suffix(".py").is_file():
            yield path.with_suffix(".py")
        elif (path / "__init__.py").is_file():
            yield path / "__init__.py"
