"""Text of models, judges and data is text, and nothing else, in every page and file that people open."""

import csv
import html.parser
import itertools
import json

import matplotlib
import pytest
from injections import ALL, EVIL
from markdown_it import MarkdownIt
from report_pages import POLICIES, choose, data_of, visit

import measurements.report
from prefline import files
from prefline.errors import InputError
from prefline.reporting import browsed, pictures
from prefline.text import markdown
from scripts.mt_bench import plot_winrate
from scripts.publish import cards
from scripts.report import write_report

# Elements of the report's own that may hold a text.
OURS = {
    "address", "article", "b", "bdi", "blockquote", "br", "button", "code", "del", "details", "div", "em",
    "h4", "h5", "header", "hr", "li", "mark", "ol", "p", "pre", "span", "strong", "summary", "table", "tbody",
    "td", "th", "thead", "tr", "ul",
}  # fmt: skip


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """Return a report in which every text, category and name of a benchmark is hostile."""
    folder, said = tmp_path_factory.mktemp("injected"), itertools.cycle(ALL)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(measurements.report, "CATEGORIES", ALL[:: len(ALL) // 40])
        flags = measurements.report.experiment(folder, POLICIES, 300, lambda kind: next(said))
    columns = ["policy", "benchmark", "metric"]
    rows = [{"policy": "sft", "benchmark": text, "metric": text} for text in ALL]
    files.write_csv(folder / "benchmarks.csv", columns, rows)
    config = {"seed": 1, **{f"key {number}": text for number, text in enumerate(ALL)}}
    flags[flags.index("--config") + 1] = json.dumps(config)
    write_report.main([*flags, "--prompts", "100", "--out", str(folder / "report.html")])
    return folder / "report.html"


class Tags(html.parser.HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.found, self.text = [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.found.append((tag, dict(attributes)))

    def handle_data(self, data):
        self.text.append(data)


def test_the_corpus_is_large_and_in_the_report(page):
    assert len(ALL) == len(set(ALL)) >= 100
    texts = json.dumps(data_of(page), ensure_ascii=False)
    assert all(json.dumps(text, ensure_ascii=False)[1:-1] in texts for text in ALL)


def test_the_report_has_no_element_and_no_attribute_of_a_text(page):
    found = Tags(page.read_text()).found
    tags = {tag for tag, _ in found}
    assert tags.isdisjoint(
        {"iframe", "object", "embed", "base", "link", "video", "audio", "template", "math"}
    )
    assert [tag for tag, _ in found].count("script") == 2 and [tag for tag, _ in found].count("style") == 1
    for tag, attributes in found:
        assert not any(name.startswith("on") for name in attributes), (tag, attributes)
        for name in ("src", "href", "action", "srcset", "data", "ping"):
            assert attributes.get(name, "#").startswith(("#", "data:image/png;base64,")), (tag, attributes)
        assert EVIL not in (attributes.get("style") or "")


@pytest.mark.slow
def test_no_text_does_anything_in_a_browser(browser, page):
    visit(browser, page.as_uri())
    look = """
        const found = [];
        for (const one of document.querySelectorAll("#games-list *, #samples-list *, #vibe .text *")) {
            const names = [...one.attributes].map((attribute) => attribute.name);
            const link = one.localName === "a" && one.getAttribute("href").startsWith("#");
            if (!link && !arguments[0].includes(one.localName)) found.push(one.outerHTML);
            if (names.some((name) => !["class", "start", "open", "href", "title", "type"].includes(name)))
                found.push(one.outerHTML);
        }
        return found"""
    for literally in (False, True):
        for form in ("games", "samples"):
            box = browser.find_element("css selector", f"#{form}-form input[type=checkbox]")
            if box.is_selected() == literally:
                browser.execute_script("arguments[0].click()", box)
            while True:
                assert browser.execute_script(look, sorted(OURS)) == []
                following = browser.find_elements("css selector", f"#{form}-pager button:last-child")
                if not following or not following[0].is_enabled():
                    break
                browser.execute_script("arguments[0].click()", following[0])
        choose(browser, "games.category", "")
    assert browser.execute_script("return [window.owned, document.title]") == [
        None, "Preference optimization: results",
    ]  # fmt: skip
    loaded = browser.execute_script("return performance.getEntriesByType('resource').map((one) => one.name)")
    assert [name for name in loaded if not name.startswith("data:image/png")] == []
    assert browser.get_log("browser") == []


@pytest.mark.slow
def test_a_text_of_any_size_and_shape_is_shown_at_once(browser, page):
    """Show texts with very many matches, and texts that make careless patterns slow, in seconds."""
    visit(browser, page.as_uri())
    shapes = [
        "a " * 100_000, "`" * 100_000, "`a" * 50_000, "**a " * 30_000, "*a" * 50_000, "[](" * 30_000,
        "![a](b" * 20_000, "$a" * 50_000, "\\(" * 50_000, ">" * 100_000, "- " * 50_000, "# " * 50_000,
        "#" * 100_000, "|" * 50_000 + "\n" + "|-" * 25_000 + "|", "- a\n" * 20_000, "  \n" * 30_000,
        "* " * 50_000 + "x", "1. " * 30_000, "~~~\n" * 20_000, "a\n\n" * 20_000, "-" + " " * 100_000 + "x",
    ]  # fmt: skip
    seconds = """
        const began = performance.now();
        said(arguments[0], /a/giu, false);
        return (performance.now() - began) / 1000"""
    for text in shapes:
        took = browser.execute_script(seconds, text)
        assert took < 3, (text[:12], took)
    counted = "return said('a '.repeat(70000), /a/giu, arguments[0]).querySelectorAll('mark').length"
    assert [browser.execute_script(counted, literally) for literally in (False, True)] == [1000, 1000]
    marked = "return [...said('İİ xa', /x/giu, true).querySelectorAll('mark')].map((one) => one.textContent)"
    assert browser.execute_script(marked) == ["x"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("**a** *b* _c_ `d*e*`", "<p><strong>a</strong> <em>b</em> <em>c</em> <code>d*e*</code></p>"),
        ("***a***", "<p><strong><em>a</em></strong></p>"),
        ("snake_case_name 2*3*4 \\*a\\*", "<p>snake_case_name 2*3*4 *a*</p>"),
        ("# T\ntext\nmore", "<h5>T</h5><p>text\nmore</p>"),
        ("```py\n<b>\n```\nx", "<pre><code>&lt;b&gt;</code></pre><p>x</p>"),
        ("~~~\nnever closed", "<pre><code>never closed</code></pre>"),
        ("- a\n  - b\n- c", "<ul><li><p>a</p><ul><li><p>b</p></li></ul></li><li><p>c</p></li></ul>"),
        ("3. a\n\n4. b", '<ol start="3"><li><p>a</p></li><li><p>b</p></li></ol>'),
        ("1. a\n   ```\n   x\n     y\n   ```",
         '<ol start="1"><li><p>a</p><pre><code>x\n  y</code></pre></li></ol>'),
        ("> a\n> - b", "<blockquote><p>a</p><ul><li><p>b</p></li></ul></blockquote>"),
        ("a\n\n---\nb", "<p>a</p><hr><p>b</p>"),
        ("$5 and $6, $a*b*c$, \\(x_1*y*\\)", '<p>$5 and $6, <span class="math">$a*b*c$</span>, '
         '<span class="math">\\(x_1*y*\\)</span></p>'),
        ("[a](http://b) ![c](d)", '<p>a (<span class="address">http://b</span>) [image: c, '
         '<span class="address">d</span>]</p>'),
        ("a|b\n-|-\n`c`|d<br>e", '<div class="wide"><table><thead><tr><th>a</th><th>b</th></tr></thead>'
         "<tbody><tr><td><code>c</code></td><td>d<br>e</td></tr></tbody></table></div>"),
        ("<b>x</b> &amp;", "<p>&lt;b&gt;x&lt;/b&gt; &amp;amp;</p>"),
    ],
)  # fmt: skip
def test_markdown_is_shown_as_such(browser, page, text, shown):
    if not browser.current_url.startswith(page.as_uri()):
        visit(browser, page.as_uri())
    assert browser.execute_script("return said(arguments[0], null, false).innerHTML", text) == shown


def test_half_a_character_is_one_sentence(tmp_path):
    assert browsed.packed(["\ud800a"]) == browsed.packed(["\ud800a"])
    flags = measurements.report.experiment(tmp_path, POLICIES, 10, lambda kind: kind)
    broken = {
        "messages": [{"role": "user", "content": "\udc00"}],
        "answer": "\ud800",
        "finish_reason": "stop",
    }
    for policy in POLICIES:
        (tmp_path / f"vibe_check/{policy}.jsonl").write_text(json.dumps(broken) + "\n")
        path = tmp_path / f"answers/{policy}.jsonl"
        path.write_text(path.read_text().replace('"answer"', '"\\ud800"'))
    with pytest.raises(InputError, match=r"jsonl, line 1: '.*' has text that is not Unicode"):
        write_report.main([*flags, "--prompts", "5", "--out", str(tmp_path / "report.html")])


def test_no_cell_of_a_table_begins_like_a_formula(tmp_path):
    rows = [{"text": text, "number": -1.5, "left_out": text} for text in ALL]
    files.write_csv(tmp_path / "table.csv", ["text", "number"], rows)
    with open(tmp_path / "table.csv", encoding="utf-8", newline="") as file:
        found = list(csv.DictReader(file))
    for row, text in zip(found, (text.replace("\r", "\n") for text in ALL), strict=True):
        assert row["text"] in (text, f"'{text}")
    assert not [row["text"] for row in found if row["text"].lstrip(" \t\r\n")[:1] in tuple("=+-@\uff1d")]
    assert {row["number"] for row in found} == {"-1.5"}


@pytest.mark.slow
def test_a_picture_shows_any_category_and_judge(page, recwarn):
    made = files.read_json(page.parent / "winrate.json")
    summary = next(iter(made["win_rates"]["dpo-1"]["category"].values()))
    for begin in range(0, len(ALL), 60):
        some = ALL[begin : begin + 60]
        made["categories"], made["judge"] = some, some[0]
        made["other_judges"] = {
            name: {"win_rates": made["win_rates"], "repeated": {}, "agreement": {"share": 0.5, "kappa": None}}
            for name in some[1:4]
        }
        for policy in made["policies"]:
            made["win_rates"][policy]["category"] = dict.fromkeys(some, summary)
        figure = plot_winrate.draw(made)
        figure.set_dpi(20)
        with matplotlib.rc_context(pictures.STYLE):
            figure.canvas.draw()
        pictures.save(plot_winrate.draw(made | {"categories": some[:2]}), page.parent / "picture.png")
    titles = [axes.get_title(loc="left") for axes in figure.axes]
    assert " =1+1" in titles


@pytest.mark.parametrize("form", [markdown.literal, markdown.code])
def test_a_text_in_markdown_is_shown_literally_in_a_line_and_in_a_table(form):
    reader = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])
    for text in ALL:
        wanted = "".join(markdown.UNSEEN.sub("\N{REPLACEMENT CHARACTER}", text).split())
        for page in (
            f"A {form(text)} b",
            f"| a | b |\n| --- | --- |\n| {form(text)} | c |",
        ):
            found = Tags(reader.render(page))
            tags = {tag for tag, _ in found.found}
            assert tags <= {"p", "code", "br", "table", "thead", "tbody", "tr", "th", "td"}, text
            assert not any(attributes for _, attributes in found.found), text
            assert wanted in "".join("".join(found.text).split()), text
        assert f"https://{EVIL}" not in form(text) or form(text).startswith("`"), text


def test_a_card_shows_every_value_literally():
    """Show literally what is in a template without a filter, and so whatever somebody adds."""
    reader = MarkdownIt("commonmark", {"html": True}).enable("table")
    params = {"text": ALL, **{text: 1 for text in ALL}}
    manifest = {
        "files": {text: "0" * 64 for text in ALL},
        "lineage": {"rule": ALL[0], "params": params, "packages": {}, "parents": dict.fromkeys(ALL, "0")},
    }
    config = {"publish": {"license": ALL[1]}}
    for template in ("lineage.md.j2", "numbers.md.j2"):
        text = cards.rendered(template, config, manifest, manifest, {}, (), ())
        found = Tags(reader.render(text))
        assert {tag for tag, _ in found.found} <= {
            "p", "code", "br", "h2", "table", "thead", "tbody", "tr", "th", "td",
        }  # fmt: skip
        assert not any(attributes for _, attributes in found.found)
        assert len([line for line in text.splitlines() if line.startswith("#")]) <= 2
