"""Pages of the library and of the scripts, from their docstrings: docs/api/.

The library is read, not imported, so its pages need none of what trains or generates. Docstrings here are
prose: paragraphs, lists, indented blocks that are shown unchanged, and code between backticks. `rest`
translates them into Sphinx's markup.
"""

import argparse
import ast
import importlib
import re
from pathlib import Path
from unittest import mock

LIBRARY = Path("prefline")
# {folder of programs: title of its page, and first sentence}
PROGRAMS = {
    "scripts": (
        "Scripts reference: one for each rule",
        "This page lists the flags of `python -m scripts.STEP.NAME`, which the rules run. Flags come from "
        "the schema.",
    ),
    "measurements": (
        "Measurements reference",
        "This page lists the flags of `python -m measurements.NAME`, which compare Prefline with published "
        "code.",
    ),
    "tools": (
        "Command reference: python -m tools.NAME",
        "This page lists the commands that you run beside Snakemake: `chat`, `serve`, `progress`, "
        "`lineage`, `journal`, `costs` and `pin_sources` for experiments, the others for development.",
    ),
}


class _Parsed(Exception):
    """Holds the parser that a script was about to use."""


def rest(text):
    """Return a docstring as reStructuredText that renders the same: list of str."""
    out, literal, item = [], False, 0
    for line in text.splitlines():
        indent = len(line) - len(line.lstrip())
        words = line.strip()
        if not words:
            out.append("")
        elif indent >= 4 and (literal or indent != item):
            out += [line] if literal else ["", "::", "", line]
            literal = True
        else:
            out += [""] if literal else []
            literal = False
            mark = re.match(r"(- |\d+\. )", words)
            if mark:
                item = indent + len(mark[1])
                out += ["", f"{' ' * indent}{mark[1]}{_inline(words[mark.end() :])}"]
            else:
                # A paragraph after a list is no part of its last item.
                out += [""] if item and not indent else []
                item = item if indent else 0
                out.append(" " * indent + _inline(words))
    return [*out, ""]


def _inline(text):
    """Return a line of prose (str) in which code stays code and all other markup is escaped."""
    parts = re.split(r"`([^`]+)`", text)
    parts[::2] = [re.sub(r"([\\*_|`:]|^[-+.>(\d])", r"\\\1", part) for part in parts[::2]]
    # Without the empty escapes, code that touches a letter would not be seen as code.
    parts[1::2] = [f"\\ ``{code}``\\ " for code in parts[1::2]]
    return "".join(parts)


def docstring(node):
    """Return the docstring (str) of a module, class or function without its indentation in the code.

    ast's cleaning removes all common indentation, and with it the mark of an indented block.
    """
    first, *lines = (ast.get_docstring(node, clean=False) or "").splitlines() or [""]
    around = " " * getattr(node.body[0], "col_offset", 0)
    return "\n".join([first, *(line.removeprefix(around) for line in lines)]).strip()


def name_of(path):
    """Return the name (str) of the module in a file below the project's root."""
    parts = path.with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def members(tree):
    """Return the public functions and classes with a docstring in a module or class: list of ast nodes."""
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    found = [node for node in tree.body if isinstance(node, kinds)]
    return [node for node in found if not node.name.startswith("_") and ast.get_docstring(node)]


def signature(node, method):
    """Return the arguments of a function or class as written in its source: str."""
    if isinstance(node, ast.ClassDef):
        made = [part for part in node.body if getattr(part, "name", "") == "__init__"]
        if made:
            return signature(made[0], method=True)
        fields = [part for part in node.body if isinstance(part, ast.AnnAssign)]
        return f"({', '.join(field.target.id for field in fields)})"
    bound = method and not any(ast.unparse(one) == "staticmethod" for one in node.decorator_list)
    if bound:
        named = node.args.posonlyargs or node.args.args
        named.pop(0)
    for argument in ast.walk(node.args):
        if isinstance(argument, ast.arg):
            argument.annotation = None
    return f"({ast.unparse(node.args)})"


def described(node, indent="", method=False):
    """Return a function or class with its members, as directives of Sphinx: list of str."""
    kind = "class" if isinstance(node, ast.ClassDef) else "method" if method else "function"
    if any(ast.unparse(one).endswith("property") for one in getattr(node, "decorator_list", [])):
        head = f".. py:property:: {node.name}"
    else:
        head = f".. py:{kind}:: {node.name}{signature(node, method)}"
    body = rest(docstring(node))
    lines = [indent + head, "", *(f"{indent}   {line}".rstrip() for line in body), ""]
    for member in members(node) if kind == "class" else []:
        lines += described(member, indent + "   ", method=True)
    return lines


def module_section(path):
    """Return a module with its functions and classes: list of str."""
    tree, name = ast.parse(path.read_text(encoding="utf-8")), name_of(path)
    title = name.removeprefix("prefline.")
    lines = [title, "-" * len(title), "", f".. py:module:: {name}", "", *rest(docstring(tree))]
    for node in members(tree):
        lines += described(node)
    return lines


def library_pages():
    """Return {name: lines} of the library's pages: one per folder, and one for the files beside them."""
    pages = {}
    for folder in [LIBRARY, *sorted(path.parent for path in LIBRARY.glob("*/__init__.py"))]:
        title = name_of(folder)
        sections = [line for file in sorted(folder.glob("*.py")) for line in module_section(file)]
        pages[folder.name] = [title, "=" * len(title), "", *sections]
    return pages


def parser_of(name):
    """Return the argparse parser of the module `name`, taken from its main; None if it reads no flags."""

    def stop(parser, *_, **__):
        raise _Parsed(parser)

    module = importlib.import_module(name)
    # A main that reads no flags would do its work.
    if "parse_args(" not in Path(module.__file__).read_text(encoding="utf-8"):
        return None
    with mock.patch.object(argparse.ArgumentParser, "parse_args", stop), mock.patch("sys.argv", [name]):
        try:
            module.main()
        except _Parsed as parsed:
            return parsed.args[0]
    return None


def flags(parser):
    """Return the flags of a parser as Sphinx's directives for options: list of str."""
    lines = []
    for action in parser._actions:
        if isinstance(action, argparse._HelpAction):
            continue
        if isinstance(action, argparse._SubParsersAction):
            for name, sub in action.choices.items():
                lines += ["", f"**{name}**", "", *flags(sub)]
            continue
        words = [", ".join(action.option_strings) or action.dest]
        if action.option_strings and action.nargs != 0:
            words.append(action.metavar or action.dest.upper())
        lines += [f".. option:: {' '.join(words)}", "", f"   {_inline(action.help or '')}"]
        if action.choices:
            lines += ["", f"   One of {', '.join(f'``{choice}``' for choice in action.choices)}."]
        lines.append("")
    return lines


def scripts_page(title, about, folder):
    """Return a page of all modules in a folder that run as `python -m`: list of str."""
    lines = [title, "=" * len(title), "", *rest(about)]
    for path in sorted(folder.rglob("*.py")):
        text, name = path.read_text(encoding="utf-8"), name_of(path)
        if "__main__" not in text:
            continue
        lines += ["", path.stem, "-" * len(path.stem), "", *rest(docstring(ast.parse(text)))]
        parser = parser_of(name)
        if parser:
            lines += [f".. program:: python -m {name}", "", *flags(parser)]
    return lines


def write_pages(folder):
    """Write the pages into a folder, except unchanged ones: Sphinx rebuilds a page with a new time."""
    pages = library_pages()
    for name, (title, about) in PROGRAMS.items():
        pages[name] = scripts_page(title, about, Path(name))
    folder.mkdir(exist_ok=True)
    for name, lines in pages.items():
        path, text = folder / f"{name}.rst", "\n".join(lines)
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")
