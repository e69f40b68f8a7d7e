"""The report's page: true to its inputs, harmless whatever models wrote, and usable in a browser."""

import base64
import importlib.util
import itertools
import json
import os
import re
import shutil
import subprocess
import zlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from measurements.report import experiment
from prefline.errors import InputError
from prefline.reporting import contents, rulegraph
from scripts.report import write_report

POLICIES = ["sft", "dpo-1", "dpo-2"]
HOSTILE = (
    "</script><script>document.title = 'owned'</script><img src=x onerror=alert(1)> {{ 7 * 7 }} [[A]] ü✓"
)


def make(folder, prompts=100, policies=POLICIES):
    """The page of an experiment in which everybody says something hostile, and a number."""
    number = itertools.count()
    flags = experiment(folder, policies, 100, lambda kind: f"{kind} {next(number)} {HOSTILE}")
    write_report.main([*flags, "--prompts", str(prompts), "--out", str(folder / "report.html")])
    return folder / "report.html"


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    return make(tmp_path_factory.mktemp("experiment"))


def browsed(page):
    """What the page's script reads."""
    packed = re.search(r'<script id="packed" type="text/plain">(.*?)</script>', page.read_text(), re.S)[1]
    return json.loads(zlib.decompress(base64.b64decode(packed)))


def test_nothing_that_a_model_wrote_is_markup(page):
    text = page.read_text()
    assert text.count("<script") == 2 and "<img src=x" not in text
    assert "49" not in re.sub(r"\d{3,}", "", re.search(r'id="vibe".*?</section>', text, re.S)[0])


def test_nothing_is_fetched(page):
    text = page.read_text()
    assert "default-src 'none'" in text
    assert re.findall(r'(?:src|href)="(?!data:image/png|#)[^"]*"', text) == []


def test_other_benchmarks_stand_in_a_table(page, tmp_path):
    text = page.read_text()
    assert "<h3>Benchmarks</h3>" in text
    assert "<tr><td>sft</td><td>gsm8k</td><td>exact_match</td><td>0.1235</td><td>1319</td></tr>" in text
    (tmp_path / "contamination.csv").write_text("benchmark,share\n<b>,1e-05\n")
    table = contents.table(tmp_path / "contamination.csv")
    assert table == {"title": "contamination", "columns": ["benchmark", "share"], "rows": [["<b>", "1e-05"]]}


def test_equal_inputs_give_equal_pages(page, tmp_path):
    assert make(tmp_path).read_text() == page.read_text().replace(str(page.parent), str(tmp_path))


def test_every_verdict_is_there_with_both_games(page):
    verdicts = browsed(page)["verdicts"]
    assert set(verdicts) == set(POLICIES[1:])
    rows = [json.loads(line) for line in (page.parent / "judgments/dpo-2.jsonl").read_text().splitlines()]
    for row in rows:
        made = next(one for one in verdicts["dpo-2"][str(row["question_id"])] if one["turn"] == row["turn"])
        first, second = made["games"]
        assert (first["first"], second["first"]) == ("dpo-2", "sft")
        assert first["words"] == row["g1_judgment"] and second["words"] == row["g2_judgment"]
        names = {"model_1": "dpo-2", "model_2": "sft", "tie": "tie"}
        assert [game["winner"] for game in made["games"]] == [
            names[row["g1_winner"]], names[row["g2_winner"]]
        ]  # fmt: skip


def test_completions_stand_best_first_with_their_roles(page):
    samples = browsed(page)["samples"]
    assert set(samples) == {"sft", "dpo-1"}
    for row in samples["sft"]:
        rewards = [one["reward"] for one in row["completions"]]
        assert rewards == sorted(rewards, reverse=True) and len(rewards) == 5
        assert {one["role"] for one in row["completions"]} == {"chosen", "rejected", None}


def test_a_large_experiment_is_browsed_in_part(tmp_path):
    everything = browsed(make(tmp_path / "all"))["samples"]["sft"]
    some = browsed(make(tmp_path / "some", prompts=3))["samples"]["sft"]
    assert len(some) == 3 and [row["id"] for row in some] == [row["id"] for row in everything[:3]]


def test_samples_of_other_shards_are_refused(page, tmp_path):
    shutil.copytree(page.parent / "samples/sft", tmp_path / "sft")
    with pytest.raises(InputError, match="is in no shard"):
        contents.samples(tmp_path / "sft", ["test-00000"], 100)


def test_what_differs_between_runs():
    runs = {"a": {"beta": 0.1, "loss_type": "ipo", "seed": 1}, "b": {"beta": 0.2, "eta": 1.0, "seed": 1}}
    assert contents.differences(runs) == [
        {"key": "beta", "cells": ["0.1", "0.2"]},
        {"key": "loss_type", "cells": ["ipo", ""]},
        {"key": "eta", "cells": ["", "1.0"]},
    ]
    assert contents.differences({"a": runs["a"]}) == []


def test_the_rules_of_two_iterations_are_one_graph_with_a_way_back():
    made = {
        "data": None,
        "sft": ("train_sft", ["data"]),
        "samples-0": ("generate", ["sft"]),
        "dpo-1": ("train_policy", ["sft", "samples-0"]),
        "samples-1": ("generate", ["dpo-1"]),
        "dpo-2": ("train_policy", ["dpo-1", "samples-1"]),
        "answers": ("answer", ["dpo-2"]),
        "start_answers": ("answer", ["sft"]),
    }
    edges, again = contents.rule_edges(["answers", "start_answers"], made.get)
    assert again == [("train_policy", "generate")]
    assert set(edges) == {
        ("train_sft", "generate"), ("train_sft", "train_policy"), ("generate", "train_policy"),
        ("train_policy", "answer"), ("train_sft", "answer"),
    }  # fmt: skip


@given(
    st.integers(2, 12).flatmap(lambda n: st.sets(st.tuples(st.integers(0, n), st.integers(0, n)), min_size=1))
)
def test_boxes_of_a_graph_never_overlap(pairs):
    edges = sorted({(f"rule_{min(a, b)}", f"rule_{max(a, b)}") for a, b in pairs if a != b})
    if not edges:
        return
    place = rulegraph.positions(sorted({rule for edge in edges for rule in edge}), edges)
    for (_, (x1, y1)), (_, (x2, y2)) in itertools.combinations(place.items(), 2):
        assert abs(x1 - x2) >= rulegraph.WIDTH or abs(y1 - y2) >= rulegraph.HEIGHT
    for a, b in edges:
        assert place[a][1] > place[b][1]


# What a person does with the page, in a browser. Chromium comes from the machine's packages.


def installed():
    """Whether Chromium and its driver are there, after Debian was asked for them where that is allowed."""
    if not shutil.which("chromedriver") and shutil.which("apt-get") and os.geteuid() == 0:
        environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        for words in (
            ["update"],
            ["install", "-y", "--no-install-recommends", "chromium", "chromium-driver"],
        ):
            subprocess.run(["apt-get", "-qq", *words], env=environment, capture_output=True, check=False)
    return shutil.which("chromedriver") and (shutil.which("chromium") or shutil.which("google-chrome"))


@pytest.fixture(scope="module")
def browser():
    chromium = installed()
    if not chromium or not importlib.util.find_spec("selenium"):
        pytest.skip("Chromium and its driver are not installed, and this is no root on Debian")
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium") or shutil.which("google-chrome")
    for flag in (
        "headless=new",
        "no-sandbox",
        "disable-gpu",
        "disable-background-networking",
        "no-first-run",
    ):
        options.add_argument(f"--{flag}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options, webdriver.ChromeService(shutil.which("chromedriver")))
    yield driver
    driver.quit()


@pytest.fixture
def opened(browser, page):
    """The browser with the page open, as from a disk, and its two lists drawn."""
    from selenium.webdriver.support.ui import WebDriverWait

    browser.get(page.as_uri())
    WebDriverWait(browser, 20).until(
        lambda driver: driver.execute_script("return document.body.dataset.ready")
    )
    return browser


def cards(driver, name):
    return driver.find_elements("css selector", f"#{name}-list > article")


def choose(driver, name, value):
    """Set a control of a form, named form.control, as typing or picking would."""
    form, control = name.split(".")
    driver.execute_script(
        "const control = document.getElementById(arguments[0])[arguments[1]];"
        "control.value = arguments[2]; control.dispatchEvent(new Event('input', {bubbles: true}))",
        f"{form}-form", control, value,
    )  # fmt: skip


def count(driver, name):
    return int(driver.find_element("id", f"{name}-count").text.split()[0])


@pytest.mark.slow
def test_search_filter_and_side_by_side_in_a_browser(opened, page):
    data = browsed(page)
    assert count(opened, "games") == 80 and len(cards(opened, "games")) == 5
    choose(opened, "games.category", "math")
    assert count(opened, "games") == 20
    choose(opened, "games.left", "dpo-2")
    choose(opened, "games.verdict", "win")
    won = {
        question for question, turns in data["verdicts"]["dpo-2"].items()
        if any(turn["outcome"] == "win" for turn in turns) and int(question) % 4 == 1
    }  # fmt: skip
    assert count(opened, "games") == len(won)
    choose(opened, "games.category", "all")
    choose(opened, "games.verdict", "all")
    wanted = data["verdicts"]["dpo-2"]["7"][0]["games"][1]["words"].split(HOSTILE[0])[0].strip()
    choose(opened, "games.search", f"{wanted} ")
    (card,) = cards(opened, "games")
    assert (
        "question 7" in card.text and wanted in card.text
    )  # the judge's words are unfolded where they match
    assert "sft first, dpo-2 second" in card.text
    assert data["answers"]["dpo-2"]["7"][0] in card.text and data["answers"]["sft"]["7"][0] in card.text
    choose(opened, "samples.policy", "dpo-1")
    choose(opened, "samples.split", "test")
    assert count(opened, "samples") == 4
    assert "chosen" in cards(opened, "samples")[0].text
    choose(opened, "samples.search", "nobody said this")
    assert count(opened, "samples") == 0
    assert opened.title == "Preference optimization: what it gave"
    assert opened.get_log("browser") == []


@pytest.mark.slow
@pytest.mark.parametrize("width", [360, 1200])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_fits_phones_and_both_schemes(opened, width, scheme):
    media = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    opened.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
    screen = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 600}
    opened.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)
    wide = opened.execute_script("return document.documentElement.scrollWidth")
    colours = opened.execute_script(
        "const style = getComputedStyle(document.body); return [style.color, style.backgroundColor]"
    )
    ink, paper = (sum(map(int, re.findall(r"\d+", colour)[:3])) / 765 for colour in colours)
    opened.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    assert wide <= width
    assert (paper > 0.9 and ink < 0.2) if scheme == "light" else (paper < 0.15 and ink > 0.8)


def test_templates_and_their_like_are_inputs_of_rules():
    rules = "".join(path.read_text() for path in Path("rules").glob("*.smk"))
    read = [path.name for path in Path("scripts/report").iterdir() if path.suffix in (".j2", ".css", ".js")]
    assert len(read) == 4 and all(name in rules for name in read)
