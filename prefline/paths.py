"""Find the mistake in a path that somebody typed, and the path that was probably meant."""

import contextlib
import difflib
import glob
import os
import re
from pathlib import Path

from prefline import unicode

# The first bytes of a file that Git LFS has not fetched, and the most bytes of such a file.
LFS = b"version https://git-lfs.github.com/spec"
LARGEST_POINTER = 1024
HUB_PAGE = re.compile(r"https?://(?:www\.)?(?:huggingface\.co|hf\.co)/(?:datasets/)?([^/?#]+/[^/?#]+).*")
HUB_SOURCE = re.compile(r"\s*hub\s*:", re.IGNORECASE)
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")

FILE_NAME = re.compile(r"\.(jsonl?|csv|tsv|parquet|arrow|txt|safetensors)$")


def mistake(path, kind, on_hub=None):
    """Return the mistake (str) in the path of what should be a "file" or a "directory"; None if it is one.

    path: str or Path, as it was typed; on_hub: form (str) of a source on the hub, with ID for its name, None
    where the hub is no source.
    """
    path, typed = Path(path), str(path)
    try:
        if path.is_dir() if kind == "directory" else path.is_file():
            return unreadable(path)
        if path.is_symlink() and not path.exists():
            return (
                f"{path} is a link to {os.readlink(path)}, which is missing; put it there, or name a {kind}"
            )
        if path.exists():
            return f"{path} is not a {kind}; name one"
        hint = _hint(path, typed, on_hub)
    except OSError as error:  # a name that is too long, a folder that others may not look into
        return f"{path!s:.100}: {error.strerror}; name a {kind} that can be read"
    return f"there is no {kind} {typed} (seen from {Path.cwd()}); {hint}"


def unreadable(path):
    """Return why an existing file or directory (Path) cannot be read (str), None if it can."""
    if not os.access(path, os.R_OK | (os.X_OK if path.is_dir() else 0)):
        return f"{path}: you may not read it; change its permissions, or name another"
    return (
        f"{path} is a pointer of Git LFS, not the file; run `git lfs pull` beside it"
        if pointer(path)
        else None
    )


def odd_name(path):
    """Return why a path (Path or str) cannot be an input of a rule (str), None if it can.

    Snakemake fills in what is in braces, and no record can hold bytes that are not UTF-8.
    """
    if set("{}") & set(str(path)):
        return f"{path}: has a brace in its name; rename the file"
    if not unicode.is_valid(str(path)):
        return f"{path}: has a byte in its name that is not UTF-8; rename the file"
    return None


def pointer(path):
    """Return whether a file (Path) is a pointer that Git LFS has not replaced by the file itself."""
    if path.is_dir() or path.stat().st_size > LARGEST_POINTER:
        return False
    with open(path, "rb") as file:
        return file.read(len(LFS)) == LFS


def _hint(path, typed, on_hub):
    """Return what to write in place of a path that is missing, as words that end a sentence."""
    if found := HUB_PAGE.fullmatch(typed):
        return f"write {on_hub.replace('ID', found[1])}" if on_hub else "download it, and name its path"
    if near := _nearest(path) or _moved(path, typed):
        return f"did you mean {near}?"
    if HUB_SOURCE.match(typed):
        return f"write {on_hub}" if on_hub else "download it from the hub first: this key takes a local path"
    if typed.startswith("~") or "$" in typed:
        return "~ and variables are not replaced here; write the whole path"
    if on_hub and HUB_ID.fullmatch(typed) and not path.parent.exists() and not FILE_NAME.search(typed):
        return f"correct the path, or write {on_hub.replace('ID', typed)} for one on the hub"
    return "correct the path, or put it there"


def _nearest(path):
    """Return the existing path (str) that `path` looks like a misspelling of, or None."""
    missing = next(part for part in (*reversed(path.parents), path) if not part.exists())
    names = []
    with contextlib.suppress(OSError):
        names = sorted(sibling.name for sibling in missing.parent.iterdir())
    same = [name for name in names if name.casefold() == missing.name.casefold()]
    for name in same + difflib.get_close_matches(missing.name, names):
        near = missing.with_name(name)
        if missing == path:
            if near.exists():
                return str(near)
            continue
        rest = near / path.relative_to(missing)
        if rest.exists():
            return str(rest)
        if name in same and (deeper := _nearest(rest)):
            return deeper
    return None


def _moved(path, typed):
    """Return the existing path (str) that `typed` names from another folder or in another form, or None."""
    plain = re.sub(r"^file://", "", typed).strip(" '\"").replace("\\", "/")
    tried = [os.path.expanduser(os.path.expandvars(plain)), plain, plain.lstrip("/"), plain.split("/", 1)[-1]]
    for one in tried:
        if one and one != typed and Path(one).exists():
            return one
    if path.is_absolute():
        return None
    found = [one for above in ("*", "*/*", "*/*/*") for one in Path().glob(f"{above}/{glob.escape(typed)}")]
    return next((str(one) for one in found if not any(part[0] in "._" for part in one.parts)), None)
