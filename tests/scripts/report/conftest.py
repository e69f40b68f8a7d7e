"""A report and a browser for the tests of this folder."""

import pytest
import report_pages


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    return report_pages.make(tmp_path_factory.mktemp("experiment"))


@pytest.fixture(scope="module")
def browser():
    yield from report_pages.start_browser()


@pytest.fixture
def opened(browser, page):
    """The browser with the page open, as from a disk, and its two lists drawn."""
    report_pages.visit(browser, page.as_uri())
    return browser
