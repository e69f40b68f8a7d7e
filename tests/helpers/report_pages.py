"""A report of an experiment in which everybody says something hostile, and a browser that shows it."""

import base64
import importlib.util
import itertools
import json
import os
import re
import shutil
import subprocess
import time
import zlib

import pytest

from measurements.report import experiment
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


def data_of(page):
    """What the page's script reads."""
    packed = re.search(r'<script id="packed" type="text/plain">(.*?)</script>', page.read_text(), re.S)[1]
    return json.loads(zlib.decompress(base64.b64decode(packed)))


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


def start_browser():
    """A generator of one browser, which it closes."""
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


def visit(driver, address):
    """Open an address, and wait until its two lists are drawn."""
    from selenium.webdriver.support.ui import WebDriverWait

    driver.get("about:blank")
    driver.get(address)
    WebDriverWait(driver, 20).until(lambda _: driver.execute_script("return document.body.dataset.ready"))


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


def search(driver, name, words):
    """Type into a search box, and wait until the page has searched."""
    choose(driver, name, words)
    time.sleep(0.4)


def count(driver, name):
    return int(driver.find_element("id", f"{name}-count").text.split()[0])
