"""Check the words of Snakemake's --configfile before Snakemake reads them.

profiles/default runs `check`, since no rule is read yet.
"""

import sys

from prefline import paths

FLAGS = ("--configfile", "--configfiles")
# Endings of files of config values.
ENDINGS = (".yaml", ".yml", ".json")


def check(words):
    """End Snakemake with one sentence if a word after --configfile is a target or a missing file.

    words: list of str, as sys.argv. Snakemake itself shows a traceback, since it takes all of them for files.
    """
    given = of_flag(words[1:])
    files = [word for word in given if word.endswith(ENDINGS) and not word.startswith("results/")]
    for word in given:
        if word in files and (wrong := paths.mistake(word, "file")):
            sys.exit(f"Error: --configfile: {wrong}")
        if word not in files:
            sys.exit(
                f"Error: --configfile takes every word that follows it, and {word} is no file of config "
                f"values; write targets first: snakemake {word} --configfile {' '.join(files) or 'mine.yaml'}"
            )


def of_flag(words):
    """Return the words (list of str) that Snakemake takes for config files."""
    found, taking = [], False
    for word in words:
        flag, equals, value = word.partition("=")
        if word.startswith("-"):
            taking = flag in FLAGS
            found += [value] * (taking and bool(equals))
            taking = taking and not equals
        elif taking:
            found.append(word)
    return found
