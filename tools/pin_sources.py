"""Replace the branches and tags of a config file's hub sources by their current commits.

A branch may move: `hub:org/name@main` in a recipe gives the newest version. Pin it before an experiment that
must be repeatable. Nothing else in the file changes, comments included.

    python -m tools.pin_sources recipes/rebel.yaml
"""

import re
from pathlib import Path

from prefline import errors, files
from prefline.config import section
from prefline.data import sources
from prefline.errors import InputError

SOURCE = re.compile(r"hub:[^@#\s\"',]+@(?P<revision>[^@#\s\"',]+)(?:#[^\s\"',]+)?")


def pin(text, commit_of):
    """Return `text` (str) with a commit in each hub source, and [(source, commit)] of those that had none.

    commit_of: function of a source (str) that gives its commit.
    """
    pinned = {}

    def written(match):
        line = text[text.rfind("\n", 0, match.start()) + 1 : match.start()]
        if sources.is_commit(match["revision"]) or re.search(r"(^|\s)#", line):
            return match[0]
        if match[0] not in pinned:
            pinned[match[0]] = commit_of(match[0])
        return match[0].replace(f"@{match['revision']}", f"@{pinned[match[0]]}", 1)

    return SOURCE.sub(written, text), list(pinned.items())


def main(argv=None):
    parser = section.parser(__doc__)
    parser.add_argument("files", nargs="+", help="YAML files to pin, in place")
    args = parser.parse_args(argv)
    missing = [path for path in args.files if not Path(path).is_file()]
    if missing:
        raise InputError(f"{missing[0]}: no such file; nothing was pinned")
    for path in args.files:
        text, pinned = pin(Path(path).read_text(encoding="utf-8"), sources.commit_of)
        if pinned:
            files.write_text(path, text)
        for source, commit in pinned:
            print(f"{path}: {source} is {commit}")
        if not pinned:
            print(f"{path}: nothing to pin")


if __name__ == "__main__":
    errors.run(main)
