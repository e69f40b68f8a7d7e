"""What a person does with the report, in a browser. Chromium comes from the machine's packages."""

import re

import pytest
from report_pages import HOSTILE, cards, choose, count, data_of, search, visit


@pytest.mark.slow
def test_search_filter_and_side_by_side_in_a_browser(opened, page):
    data = data_of(page)
    assert count(opened, "games") == 80 and len(cards(opened, "games")) == 5
    choose(opened, "games.category", "math")
    assert count(opened, "games") == 20
    choose(opened, "games.left", "dpo-2")
    choose(opened, "games.verdict", "left")
    matches = data["verdicts"][1]["matches"]
    won = [turns for turns in matches[1::4] if any(turn[:2] == [1, 1] for turn in turns)]
    assert count(opened, "games") == len(won)
    choose(opened, "games.category", "")
    choose(opened, "games.verdict", "")
    wanted = matches[7][0][3].split(HOSTILE[0])[0].strip()
    search(opened, "games.search", f"{wanted} ")
    (card,) = cards(opened, "games")
    assert (
        "question 7" in card.text and wanted in card.text
    )  # the judge's words are unfolded where they match
    assert "sft first, dpo-2 second" in card.text
    assert data["answers"]["dpo-2"][7][0] in card.text and data["answers"]["sft"][7][0] in card.text
    choose(opened, "samples.policy", "dpo-1")
    choose(opened, "samples.split", "test")
    assert count(opened, "samples") == 4
    assert "chosen" in cards(opened, "samples")[0].text
    search(opened, "samples.search", "nobody said this")
    assert count(opened, "samples") == 0
    assert opened.title == "Preference optimization: results"
    assert opened.get_log("browser") == []


@pytest.mark.slow
def test_a_verdict_is_of_the_two_policies_on_the_screen(opened, page):
    matches = data_of(page)["verdicts"][0]["matches"]
    choose(opened, "games.right", "dpo-2")
    assert "no judge compared dpo-1 with dpo-2" in opened.find_element("id", "games-count").text
    assert not opened.find_elements("css selector", "#games-list details")
    choose(opened, "games.left", "sft")
    choose(opened, "games.right", "dpo-1")
    for verdict, wanted in (
        ("right", lambda turn: turn[:2] == [1, 1]),
        ("left", lambda turn: turn[:2] == [2, 2]),
        ("disagree", lambda turn: turn[0] != turn[1]),
        ("error", lambda turn: False),
    ):
        choose(opened, "games.verdict", verdict)
        assert count(opened, "games") == sum(any(map(wanted, turns)) for turns in matches), verdict
    choose(opened, "games.verdict", "right")
    (place, turn) = next(
        (place, turn) for place, turns in enumerate(matches) for turn, made in enumerate(turns)
        if made[:2] == [1, 1]
    )  # fmt: skip
    shown = cards(opened, "games")[0]
    assert f"question {place} " in shown.text
    verdict = shown.find_elements("css selector", "details")[turn]
    assert verdict.text == "dpo-1 wins by random"
    opened.execute_script("arguments[0].open = true", verdict)
    words = verdict.text
    assert words.index("dpo-1 first, sft second: dpo-1 wins") < words.index(matches[place][turn][2][:12])
    assert words.index("sft first, dpo-1 second: dpo-1 wins") < words.index(matches[place][turn][3][:12])


@pytest.mark.slow
def test_an_address_leads_to_one_answer_and_to_a_choice(opened, page):
    choose(opened, "games.left", "dpo-2")
    choose(opened, "games.category", "math")
    opened.find_elements("css selector", "#games-pager button")[1].click()
    second, shown = opened.current_url, [card.text for card in cards(opened, "games")]
    assert second.endswith("#games?left=dpo-2&category=math&page=2")
    cards(opened, "games")[1].find_element("css selector", "header a").click()
    one = opened.current_url
    for address, wanted in ((one, shown[1:2]), (second, shown)):
        visit(opened, address)
        assert [card.text for card in cards(opened, "games")] == wanted
    opened.get(one)
    opened.find_element("css selector", "#games-count button").click()
    assert count(opened, "games") == 20
    visit(opened, f"{page.as_uri()}#samples?policy=nobody&split=test&page=x")
    assert count(opened, "samples") == 4


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
