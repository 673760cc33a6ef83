"""The pages beside a running auditor, of real messages: they keep up with it, and whatever a message says is text."""

from __future__ import annotations

import asyncio
import csv
import io
import secrets
from collections.abc import Iterator
from urllib.parse import urlencode

import pytest

from auditor.demo.server import Broker
from auditor.web.words import plain
from tests.acceptance.harness import Auditor, command
from tests.web.browser import Browser
from tests.web.conftest import Served, Serving
from tests.web.hostile import HOSTILE, send, send_order, told
from tests.web.test_pages import get

pytestmark = pytest.mark.timeout(120)


@pytest.fixture(scope="module")
def auditor(broker: Broker, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Auditor]:
    """A running auditor that was sent hostile messages, and has judged them."""
    vhost = f"hostile-{secrets.token_hex(4)}"
    broker.add_vhost(vhost)
    auditor = Auditor(broker, vhost, tmp_path_factory.mktemp("hostile"))
    auditor.settings["flows"] = [{"name": "all", "deadline": 0.5}]
    try:
        auditor.start()
        asyncio.run(send(auditor))
        yield auditor
    finally:
        auditor.close()
        broker.delete_vhost(vhost)


@pytest.fixture(scope="module")
def pages(auditor: Auditor, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """The pages, beside it."""
    with Serving(auditor.ledger, "", tmp_path_factory.mktemp("pages")) as served:
        yield served


def test_whatever_a_message_says_is_text(browser: Browser, pages: Served) -> None:
    for page in ("", "orders", "ledger/lost", "lost"):
        browser.open(f"{pages.url}/{page}")
        holds_only_text(browser)
        browser.screenshot(f"hostile-{page.replace('/', '-') or 'home'}-1200-light-en")
    for kind in HOSTILE:
        # the links lead on, whatever the ids are
        browser.open(f"{pages.url}/lost?{urlencode({'order': told(kind)})}")
        assert len(browser.all(".find")) == 2, kind
        for page in ("order", "message"):
            browser.find(f"main a[href^='/{page}?']").click()
            browser.wait(lambda page=page: f"/{page}?" in browser.url)
            assert plain(told(kind))[:200] in browser.find("h1").text, (kind, page)
            holds_only_text(browser)


def holds_only_text(browser: Browser) -> None:
    """Nothing on the page came from a message but text; it does not turn around, and all that is in it can be seen."""
    assert browser.all("main script, main img, main [onload], main [onerror]") == []
    title, shown = browser.run("document.title"), browser.run("document.querySelector('main').textContent")
    assert title != "broken"
    assert not set("\u202e\u2066\u2028\x00\x1b") & set(title + shown)
    assert not browser.too_wide()


def test_who_has_acknowledged_a_verdict_is_shown_and_why(browser: Browser, auditor: Auditor, pages: Served) -> None:
    why = HOSTILE["script"].decode()
    done = asyncio.run(command("ack", "--order", told("quote"), "--by", why, "--note", why, "--ledger", auditor.ledger))
    assert done.code == 0, done.err
    browser.open(f"{pages.url}/lost?acknowledged=yes")
    assert len(browser.all(".find.done")) == len(browser.all(".find")) == 2
    assert browser.find(".find .ack").text.count(why[:60]) == 2
    holds_only_text(browser)


def test_a_spreadsheet_takes_nothing_for_a_formula(pages: Served) -> None:
    shown = "'" + told("formula")
    _, headers, text = get(pages.url + "/lost.csv?" + urlencode({"order": told("formula")}))
    assert headers["content-type"] == "text/csv; charset=utf-8"
    rows = list(csv.DictReader(io.StringIO(text)))
    assert {(row["order_id"], row["queue"], row["reason"]) for row in rows} == {(shown, shown, "no_consumer")}


def test_the_overview_refreshes_itself_while_the_auditor_writes(
    browser: Browser, auditor: Auditor, pages: Served
) -> None:
    browser.open(pages.url)
    assert "The audit is sound" in browser.text
    assert "A-42" not in browser.text
    asyncio.run(send_order(auditor, "A-42"))
    browser.wait(lambda: "A-42" in browser.find("main").text)
