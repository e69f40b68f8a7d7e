"""Write the tables of docs/memory.md that list every resource and its default, from the rules and the schema.

python -m docs.resources
"""

import ast
import re
from pathlib import Path

from docs import generated
from prefline import files
from prefline.config import schema
from prefline.config.section import parser

PAGE = Path("docs/memory.md")
MARKS = "<!-- python -m docs.resources -->", "<!-- end of the resources -->"
HEAD = re.compile(
    r"^(?:rule (?P<rule>\w+)|use rule (?P<base>\w+) as (?P<name>\w+) with):\n(?P<body>(?:(?: .*)?\n)+)", re.M
)
BLOCK = re.compile(r"^    resources:\n(?P<inside>(?:        .*\n)+)", re.M)
# Sections of resources that several rules share, and the files that define them.
SHARED = {"TRAINING": "rules/functions/models.smk", "ENGINE": "rules/functions/engines.smk"}
# What a value means that depends on the job.
DEPENDS = {
    "fetch_model": {"mem_mb": "by the model's size"},
    "judge_mt_bench": {"gpu": "1 for the judge `reward`, else 0"},
    "asking": {"gpu": "1 for an endpoint of the kind vllm, else 0"},
    "ENGINE": {"gpu": "1, or 0 if a server has the policy"},
}
# Internal: how jobs learn which endpoints they ask.
HIDDEN = ("endpoint", "endpoints")
COLUMNS = ("gpu", "mem_mb", "runtime")


def shared(name):
    """Return the default of each resource (dict) of a section that several rules share."""
    text = Path(SHARED[name]).read_text(encoding="utf-8")
    body = re.search(rf"^{name} = (\{{.*?\}})\n", text, re.M | re.S)[1]
    found = ast.parse(body, mode="eval").body
    return {
        key.value: value_of(value, DEPENDS.get(name, {}).get(key.value))
        for key, value in zip(found.keys, found.values, strict=True)
    }


def value_of(node, otherwise=None):
    """Return a default from its expression: a number or text; `otherwise` for one that depends on the job."""
    if isinstance(node, ast.Constant):
        return node.value
    if isinstance(node, ast.Call) and ast.unparse(node.func) == "per_attempt":
        return node.args[0].value
    return otherwise


def merged(node):
    """Return the defaults (dict) of an expression that a rule unpacks into its resources."""
    if isinstance(node, ast.BinOp):
        return merged(node.left) | ast.literal_eval(node.right)
    if isinstance(node, ast.Call):  # asking(…)
        return shared("ENGINE") | DEPENDS[node.func.id]
    return shared(node.id)


def rules():
    """Return {rule: {resource: default}} of all rules, in the order of their files."""
    found = {}
    for path in sorted(Path("rules").glob("*.smk")):
        for match in HEAD.finditer(path.read_text(encoding="utf-8") + "\n"):
            name = match["rule"] or match["name"]
            block = BLOCK.search(match["body"])
            if not block:
                found[name] = found.get(match["base"], {})
                continue
            call = ast.parse(f"dict(\n{block['inside']})", mode="eval").body
            found[name] = {}
            for keyword in call.keywords:
                if keyword.arg is None:
                    found[name] |= merged(keyword.value)
                else:
                    found[name][keyword.arg] = value_of(keyword.value, DEPENDS.get(name, {}).get(keyword.arg))
    return found


def meanings():
    """Return the table (str, Markdown) of what each resource sets."""
    rows = ["| resource | meaning |", "|---|---|"]
    for name, about in schema.properties({"$ref": "#/$defs/rule_resources"}).items():
        rows.append(f"| `{name}` | {' '.join(about['description'].split()).removesuffix('.')} |")
    return "\n".join(rows)


def defaults():
    """Return the table (str, Markdown) of the rules' defaults; rules with the same ones share a row."""
    rows = {}
    for name, given in rules().items():
        other = [
            f"`{key}` {'empty' if value == '' else value}"
            for key, value in given.items()
            if key not in (*COLUMNS, "nodes", *HIDDEN)
        ]
        cells = [
            str(given.get("gpu", 0)),
            *(str(given.get(key, "")) for key in COLUMNS[1:]),
            ", ".join(other),
        ]
        rows.setdefault(tuple(cells), []).append(f"`{name}`")
    lines = ["| rules | `gpu` | `mem_mb` | `runtime` | others |", "|---|---|---|---|---|"]
    ordered = sorted(rows.items(), key=lambda row: row[0][3] == "")  # those with more to set first
    return "\n".join([*lines, *(f"| {' | '.join([', '.join(names), *cells])} |" for cells, names in ordered)])


def page(text):
    """Return the page with new tables between its MARKS."""
    return generated.replaced(text, MARKS, f"{defaults()}\n\n{meanings()}")


def main():
    parser(__doc__).parse_args()
    files.write_text(PAGE, page(PAGE.read_text(encoding="utf-8")))


if __name__ == "__main__":
    main()
