"""Configure the documentation site, which `make docs` builds into docs/_build/html.

References are made from the code: the configuration's from its schema (docs/config_reference.py), those of
the library and the scripts from docstrings (docs/api_reference.py).
"""

import os
import re
import sys
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parent.parent
# Modules imported below read the schema and the environments from the project's root.
os.chdir(ROOT)
sys.path.insert(0, str(ROOT))

from docs import api_reference, config_reference  # noqa: E402

CITATION = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))

project = "Prefline"
author = CITATION["authors"][0]["name"]
release = version = str(CITATION["version"])
html_title = f"Prefline {release}"

extensions = ["myst_parser", "sphinx.ext.githubpages", "sphinx_copybutton"]
exclude_patterns = ["_build"]

# Headings have GitHub's anchors, so that a link works in both places.
myst_heading_anchors = 4
myst_enable_extensions = ["html_image"]

toc_object_entries_show_parents = "hide"
highlight_language = "text"
smartquotes = False  # smart quotes would turn the two dashes of a flag into one
copybutton_prompt_text = "$ "  # of a console block, copy the commands without prompt and output
add_module_names = False

html_theme = "furo"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sphinx = False
html_show_copyright = False

# Files outside docs/ that are pages of the site.
PAGES = {
    "README.md": "index",
    "CHANGELOG.md": "changelog",
    "CONTRIBUTING.md": "contributing",
    "data/README.md": "data",
}


def add_text(app, docname, source):
    """Insert the configuration's reference, or a file of PAGES, into its page."""
    if docname == "config":
        source[0] += config_reference.markdown()
    for file, page in PAGES.items():
        if page == docname:
            app.env.note_dependency(str(ROOT / file))
            rest = source[0] if page == "index" else ""  # the others have only a link to their file
            source[0] = moved((ROOT / file).read_text(encoding="utf-8"), Path(file).parent) + rest
    if docname not in PAGES.values():
        source[0] = moved(source[0], Path("docs"))
    # A link with its file's name as text gets the title of the page.
    source[0] = re.sub(r"\[(?:docs/)?(\w+\.md)\]\((\1(?:#[\w-]+)?)\)", r"[](\2)", source[0])


def moved(text, folder):
    """Return Markdown (str) of a file in `folder`, with its links relative to docs/."""

    def link(match):
        target = os.path.relpath(folder / match["path"], "docs")
        page = PAGES.get(os.path.normpath(folder / match["path"]))
        return f"{match['start']}{f'{page}.md' if page else target}"

    return re.sub(r"(?P<start>\]\(|<img src=\")(?P<path>[^#():\s\"]+)(?=[)#\"])", link, text)


def setup(app):
    api_reference.write_pages(ROOT / "docs" / "api")
    app.connect("source-read", add_text)
