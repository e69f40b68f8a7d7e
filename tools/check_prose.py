"""Find prose that is hard to read: house idioms, long sentences, docstrings and headings that do not lead.

It reads pages (README, docs, CONTRIBUTING), comments, docstrings, messages and the schema's descriptions.
PHRASES, OPENINGS, HEADINGS, VERBS and LONGEST are the rules. tests/project/test_prose.py checks the whole
project, as this command does without names of files; it also lists the exceptions.

    python -m tools.check_prose README.md scripts/train/train_policy.py
"""

import ast
import io
import re
import sys
import tokenize
from pathlib import Path
from typing import NamedTuple

import yaml

from prefline import errors
from prefline.config import section

LONGEST = 35  # words in a sentence
LONGEST_HEADING = 10  # words
FEWEST = 4  # words that make a string of the code a message

# Phrases that a reader has to decode, and what to write for them. They match whatever the case of letters.
PHRASES = {
    r"stands?(?! for\b)|stood|standing": "is, is in, is listed in, lives in",
    r"(?:go|goes|going|gone|went) on(?! (?:to )?the (?:GPU|CPU|command)s?\b)": "resume, continue",
    r"(?:take|takes|took|taking) over": "resume, replace",
    r"(?:say|says|said|saying) (?:so|nothing|else|otherwise)": "report it; name the thing",
    r"of before|as before": "previous, earlier",
    r"of (?:its|their|one's|our|your) own(?=\W*$|[.,;:)|]| (?:and|or|in|by|for|from|to|is|are|so|with|at)\b)"
    r"|of (?:ours|theirs|yours)": "its own X, your own X, or nothing",
    r"by (?:itself|themselves)": "alone, automatically, separately",
    r"(?:is|are|as|in) one (?:clear )?sentence": "prints one clear error",
    r"what (?:was|is|were|has been) (?:kept|there)\b": "cached, already computed",
    r"who (?:prefers?|wins?)": "winner, preferred answer",
    r"a look|looks (?=at|of)": "an evaluation, evaluates, reads",
    r"look(?:s|ed|ing)? at": "evaluate, read, inspect",
    r"how far (?:it|a policy|the policy) (?:went|goes|is|drifted)": "KL from the start policy, progress",
    r"likewise": "the same way, also",
    r"as it (?:was|is|were)(?=[,.;:)]|$)": "unchanged",
    r"for want of": "without, because X is missing",
    r"the like|and its kin": "similar ones, or name them",
    r"has (?:it|them) (?:that|so)": "name the subject",
    r"kept from|keeps? from": "prevents",
    r"this and (?:the )?(?:next|rest|following)": "give each key its own comment",
    r"has of|have of": "name the part",
    r"whatever (?:it|they|else)": "any, in every case",
    r"be it|were it|had it": "if it is, if it had",
    r"no (?:program|process|rule|job|one|checkpoint)s? (?:prevents?|belongs?|asks?)": "subject first",
    r"teach(?:es)? nothing|makes? nothing|costs? nothing|tells? nothing": "state what happens",
    r"deals? (?:\w+ )?out|dealt out": "distributes, shares",
    r"talked into": "persuaded",
    r"in its place|in their place|in the place of": "instead, instead of",
    r"of (?:what|which) (?:it|they|a|the) \w+ (?:is|are|has|have|was)": "name the thing",
    r"to be (?:had|gone|told) ": "use an active verb",
    r"it is (?:that|which)": "subject first",
    r"alike": "the same, equally",
    r"held against|holds? (?:it|them) against": "compared with, validated with",
    r"meanwhile|at hand|to be had": "during training, current, available",
    r"goes by|go by": "uses",
    r"in silence|without a word": "silently",
    r"anew": "again",
    r"shares? out|shared out": "shards, distributes",
    r"(?:takes?|taken|taking) off": "subtracts",
    r"(?:as|than|what|where) (?:\w+ |[\w']+s ){1,3}says": "name the thing: the policy's answer",
    r"hence|thence|thereof|therein|whereof|wherein|therefrom|thereby|whence": "so, from it, in it",
}

# No sentence begins like this, unless it is a question.
OPENINGS = {
    r"(?:What|Which|Whose|Whom|How|Whether|Why) ": "name the thing, or begin with a verb",
    r"That (?:a|an|the|no|one|it|they|its|their|any|each|every|such|all|is so) ": "begin with the subject",
    r"[A-Z][a-z]+(?:ed|en|pt|lt|ne|ft|nt) (?:it|they|this) (?:is|are|was|were|has)\b": "subject first",
    r"(?:Printed|Shown|Listed|Written|Given|Kept|Named|Added|Made) (?:is|are|was|were|by)\b": "subject first",
    r"[A-Z][a-z]+ (?:it|they) (?:can|may|does|do|will|is|are)\b": "subject first",
    r"(?:Of|Such) (?:them|these|those|it|which|what)\b": "subject first",
}
QUESTIONS = r"(?:What|How|Whether|Where|Which|When|Why|Who|Whose|Whom|That)\b"
CONJUNCTIONS = (
    r"(?:After|And|As|Because|Before|But|Here|If|Once|Or|Since|So|Than|Then|There|Though|Unless|Until|When|Where"
    r"|While|Whenever|Yet)\b"
)

# First words of functions' docstrings. A new verb is added here.
VERBS = """
accept accumulate add adopt aggregate align allow annotate answer append apply approximate ask assert assign
average begin bind block bound build cache calculate call cancel cap change check choose classify clean
clear clip close collate collect combine compare complete compute configure connect continue convert copy
correct cost count create cut decide decode decorate decrypt delete derive describe detect divide do
download draw drop encode end ensure estimate evaluate execute expand expect explain export express extract
feed fetch fill filter find finish fit fix flush follow forget format free freeze gather generate get give
group guess handle hash have hide hold ignore import include index initialize insert install interrupt
iterate join judge keep kill label launch lease leave let limit link list load locate lock log look lower
make map mark mask match measure merge move name normalize offer open order pack pad parse pass pause
perform permute pick place plot point prepare preserve print profile prove publish pull push put raise rank
rate read rebuild receive recompute record recover redirect reduce refuse register release remember remove
rename render repeat replace reply report request require reset resolve resume retry return reuse rewrite
round run sample satisfy save scale score search see select send serve set shard share show shrink shuffle
signal simulate skip sleep solve sort split spread start state stop store strip submit subtract substitute
sum summarize switch take tell terminate test time tokenize track train transfer translate treat truncate
try tune turn undo unpack update upload use validate verify visit wait walk warn watch weigh weight work
wrap write yield
"""

HEADINGS = {
    r"(?:That|Who|Whose|Whom|So|And|But|Of|As|Nothing|It|They)\b": "the words that people search for",
    r"(?:What was|What is (?!\w+\??$)|A look|Where it|How it (?!works)|In short|The rest|And )": (
        "the words that people search for"
    ),
}

PAGES = ("README.md", "CONTRIBUTING.md", "docs/*.md", "data/README.md", ".github/**/*.md")
SETTINGS = ("config.yaml", "rules/schemas/*.yaml", "recipes/*.yaml", "profiles/*/*.yaml", ".github/**/*.yaml")
CODE = ("Snakefile", "rules/**/*.smk", "scripts/**/*.py", "prefline/**/*.py", "tools/*.py")


class Piece(NamedTuple):
    """Some prose of a file: its line, its kind (text, heading, docstring, function, …) and its text."""

    line: int
    kind: str
    text: str


class Finding(NamedTuple):
    """A breach of a rule: where it is, the words that break the rule, and what to do."""

    path: str
    line: int
    words: str
    advice: str


def project_files(root="."):
    """Return the paths of all files of the project that are checked, sorted."""
    found = {path for pattern in (*PAGES, *SETTINGS, *CODE) for path in Path(root).glob(pattern)}
    return sorted(str(path.relative_to(root)) for path in found)


def check(path, source=None):
    """Return the findings of a file; `source` (str) is checked as its contents if given."""
    source = Path(path).read_text() if source is None else source
    if str(path).endswith(".md"):
        pieces = page(source)
    elif str(path).endswith((".yaml", ".yml")):
        pieces = settings(source)
    elif str(path).endswith(".py"):
        pieces = [*comments(source), *python_strings(source)]
    else:
        pieces = [*comments(source), *rule_strings(source)]
    return [
        Finding(str(path), piece.line, words, advice)
        for piece in sorted(pieces)
        for words, advice in breaches(piece)
    ]


def breaches(piece):
    """Yield (words, advice) for each rule that a piece breaks."""
    text = " ".join(piece.text.split())
    for phrase, advice in PHRASES.items():
        for found in re.finditer(rf"(?<![\w-])(?:{phrase})(?![\w-])", text, re.IGNORECASE):
            yield around(text, found), f"write: {advice}"
    if piece.kind == "heading":
        if any(re.match(opening, text) for opening in HEADINGS) or count_words(text) > LONGEST_HEADING:
            yield text, "a heading has the few words that people search for"
        return
    if piece.kind == "function" and text.split()[0].lower().rstrip(",:;") not in VERBS.split():
        yield text[:60], "a function's docstring begins with a verb: Return, Read, …"
    if piece.kind == "docstring" and re.match(QUESTIONS, text):
        yield text[:60], "a docstring begins with a verb or the thing: Train, Return, The …"
    for sentence in sentences(text):
        if count_words(sentence) > LONGEST and piece.kind != "rows":
            yield sentence[:60], f"a sentence of {count_words(sentence)} words: at most {LONGEST}"
        if sentence.endswith("?") or (piece.kind in ("function", "docstring") and text.startswith(sentence)):
            continue
        if re.match(CONJUNCTIONS, sentence):
            continue
        for opening, advice in OPENINGS.items():
            if re.match(opening, sentence):
                yield sentence[:60], f"begin otherwise: {advice}"


def around(text, found):
    """Return a match with the words about it."""
    return text[max(0, found.start() - 25) : found.end() + 25]


def sentences(text):
    """Return the sentences of a text (str)."""
    item = r"(?=[a-z_]+(?:, [a-z_]+)*(?:\(\w+\))?: )"  # of a list of parameters
    ends = rf"(?<=[.!?])[)\"'*”]*\s+(?=[`\"'(*“]*[A-Z`\"]|[a-z]+[_.][a-z])|[.;]\s+{item}| · "
    return [part for part in re.split(ends, text) if part.strip()]


def count_words(text):
    """Return the number of words of a text; signs are none."""
    return sum(any(map(str.isalnum, word)) for word in text.split())


def paragraphs(lines, first, kind):
    """Yield the pieces of a comment or docstring, given its lines (list of str) and the number of the first.

    A block that is indented deeper than the first line is a table or a command: its lines are pieces alone.
    """
    margin = min((len(line) - len(line.lstrip()) for line in lines[1:] if line.strip()), default=0)
    block, start, rows = [], first, False

    def pieces():
        if rows:
            return [Piece(start + n, "rows", line) for n, line in enumerate(block)]
        return [Piece(start, kind, " ".join(block))] if block else []

    for number, line in enumerate(lines, first):
        if not line.strip() or re.match(r"\s*[-*|] ", line):
            yield from pieces()
            block, kind = [], "text" if kind in ("function", "docstring") else kind
        if line.strip():
            if not block:
                start, rows = number, number > first and len(line) - len(line.lstrip()) > margin
            block.append(line.strip())
    yield from pieces()


def comments(source):
    """Yield the comments of Python or a Snakefile; lines that follow each other are one."""
    block, last = [], 0
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type != tokenize.COMMENT or token.string.startswith(
            ("#!", "# fmt", "# type", "# noqa", "# ruff")
        ):
            continue
        own_line = not token.line[: token.start[1]].strip()
        if block and not (own_line and token.start[0] == last + 1):
            yield from paragraphs(block, last - len(block) + 1, "comment")
            block = []
        block.append(token.string[1:].replace(" ", "", 1))
        last = token.start[0]
    yield from paragraphs(block, last - len(block) + 1, "comment")


def python_strings(source):
    """Yield the docstrings and the messages of a Python file."""
    tree = ast.parse(source)
    docstrings, inner = set(), set()
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.Module) and ast.get_docstring(
            node, clean=False
        ):
            constant = node.body[0].value
            docstrings.add(constant)
            kind = "function" if isinstance(node, ast.FunctionDef) else "docstring"
            yield from paragraphs(constant.value.splitlines(), constant.lineno, kind)
        elif isinstance(node, ast.JoinedStr):
            inner.update(node.values)
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            text = "".join(part.value if isinstance(part, ast.Constant) else "X" for part in node.values)
        elif (
            isinstance(node, ast.Constant) and isinstance(node.value, str) and node not in docstrings | inner
        ):
            text = node.value
        else:
            continue
        if is_message(text):
            yield Piece(node.lineno, "message", text)


def rule_strings(source):
    """Yield the docstrings and the messages of a Snakefile, which Python cannot parse."""
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.STRING and token.string.startswith('"""'):
            rule = re.match(r"\s*def ", source.splitlines()[token.start[0] - 2])
            kind = "function" if rule else "docstring"
            yield from paragraphs(token.string.strip('"').splitlines(), token.start[0], kind)
    rest = re.sub(r'r?"""[\s\S]*?"""', lambda found: "\n" * found[0].count("\n"), source)
    for found in re.finditer(r'(?:[rf]?"(?:[^"\\\n]|\\.)*"\s*)+', rest):
        text = re.sub(r"\{[^}]*\}", "X", "".join(re.findall(r'"((?:[^"\\\n]|\\.)*)"', found[0])))
        if is_message(text):
            yield Piece(rest[: found.start()].count("\n") + 1, "message", text)


def is_message(text):
    """Return whether a string of the code is prose: some words, and neither a pattern nor a command."""
    words = re.findall(r"(?<!\S)[A-Za-z][a-z']*[,.:;]?(?!\S)", text)
    return len(words) >= FEWEST and not re.search(r"\(\?|\\[bsdw]|\bselect\b.* from ", text)


def settings(source):
    """Yield the comments and the descriptions of a YAML file."""
    block, start = [], 0
    for number, line in enumerate([*source.splitlines(), ""], 1):
        whole = re.match(r"\s*#(?!!)\s?(.*)", line)
        if whole:
            start = start if block else number
            block.append(whole[1])
            continue
        yield from paragraphs(block, start, "comment")
        block = []
        if after := re.search(r"(?<=\s)#\s(.*)", line):
            yield Piece(number, "comment", after[1])
    yield from descriptions(yaml.compose(source))


def descriptions(node):
    """Yield the values of `description` in a YAML node."""
    for key, value in getattr(node, "value", []) if isinstance(node, yaml.MappingNode) else []:
        if key.value == "description" and isinstance(value, yaml.ScalarNode):
            yield Piece(value.start_mark.line + 1, "description", value.value)
        yield from descriptions(value)
    for value in node.value if isinstance(node, yaml.SequenceNode) else []:
        yield from descriptions(value)


def page(source):
    """Yield the pieces of a Markdown page: headings, paragraphs, list items and cells of tables."""
    source = re.sub(
        r"^(```|~~~)[\s\S]*?^\1|<!--[\s\S]*?-->",
        lambda found: "\n" * found[0].count("\n"),
        source,
        flags=re.M,
    )
    block, start, listed = [], 0, False
    for number, line in enumerate([*source.splitlines(), ""], 1):
        if line.startswith("    ") and not block and not listed:
            continue  # code
        line = plain(line)
        begins = re.match(r"\s*(?:[-*+]|\d+\.)\s+|\s*>\s?", line)
        alone = re.match(r"#+ |\s*\||:::|\(\w+\)=", line)
        if (not line.strip() or begins or alone) and block:
            yield Piece(start, "text", " ".join(block))
            block = []
        listed = bool(begins) or (listed and (line.startswith(" ") or not line))
        if line.startswith("#"):
            yield Piece(number, "heading", line.lstrip("# "))
        elif line.lstrip().startswith("|"):
            for cell in re.split(r"(?<!\\)\|", line.strip().strip("|")):
                if cell.strip(" -:"):
                    yield Piece(number, "text", cell.strip())
        elif not alone and line.strip():
            start = start if block else number
            block.append(line[begins.end() :] if begins else line.strip())


def plain(line):
    """Return a line of Markdown without code, links and emphasis."""
    line = re.sub(r"`+[^`]*`+", "CODE", line)
    line = re.sub(r"!?\[([^\]]*)\](?:\([^)]*\)|\[[^\]]*\])", r"\1", line)
    return re.sub(r"\*\*|(?<!\w)[*_](?=\w)|(?<=\w)[*_](?!\w)|<[^>]+>", "", line)


def main(argv=None):
    parser = section.parser(__doc__)
    parser.add_argument("files", nargs="*", help="files to check; none: all of the project's")
    args = parser.parse_args(argv)
    findings = [finding for path in args.files or project_files() for finding in check(path)]
    for path, line, words, advice in findings:
        print(f"{path}:{line}: “{words}” {advice}")
    sys.exit(bool(findings))


if __name__ == "__main__":
    errors.run(main)
