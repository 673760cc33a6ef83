"""The demo's ledger in the pages: what was planned to go wrong is what somebody sees."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.demo import DemoRun
from tests.web.browser import Browser
from tests.web.conftest import Serve

pytestmark = pytest.mark.timeout(180)


def test_the_demos_lost_messages_are_found_from_the_overview(browser: Browser, demo_run: DemoRun, serve: Serve) -> None:
    # whether all was found is the demo's own test; the pages show what was
    pages = serve(Path(demo_run.ledger))
    browser.open(pages.url)
    assert "crm->mes" in browser.find(".chart").text
    browser.screenshot("demo-home-1200-light-en")
    browser.open(pages.url + "/lost?state=lost")
    browser.screenshot("demo-lost-1200-light-en")
    browser.find(".find a[href^='/order']").click()
    browser.wait(lambda: browser.all(".story"))
    assert {lane.text for lane in browser.all(".story .lane")} == {"queue", "shop", "crm", "mes"}
    assert len(browser.all(".story .hop.lost .cross")) == 1
    assert "mes.line-" in browser.find(".story .hop.lost").text
    assert "never arrived" in browser.find(".story .hop.lost").text
    browser.screenshot("demo-order-1200-light-en")
    browser.open(pages.url + "/lost?state=dead_lettered")
    browser.find(".find a[href^='/order']").click()
    browser.wait(lambda: browser.all(".story"))
    assert "never arrived" not in browser.find(".story").text  # it was delivered, and refused
    assert len(browser.all(".story .hop.dead_lettered .cross")) == 1
