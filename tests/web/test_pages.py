"""The pages in a real browser, on a ledger with a day's trouble in it."""

from __future__ import annotations

import urllib.error
import urllib.request
from typing import Any
from urllib.parse import quote

import pytest

from auditor.core.alerts import Alert, labels
from auditor.windows.alerts import link
from tests.web.browser import Browser
from tests.web.conftest import Served

pytestmark = pytest.mark.timeout(120)

ALL = ("/", "/lost", "/orders", "/order?id=A-3", "/message?id=message-19", "/status")


def get(url: str, **headers: str) -> tuple[int, dict[str, str], str]:
    """Ask without a browser; answers status, headers and text."""
    request = urllib.request.Request(url, headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return (
                answer.status,
                {name.lower(): value for name, value in answer.headers.items()},
                answer.read().decode(),
            )
    except urllib.error.HTTPError as error:
        return error.code, _headers(error), error.read().decode()


def _headers(answer: Any) -> dict[str, str]:
    return {name.lower(): value for name, value in answer.headers.items()}


@pytest.mark.parametrize("page", ALL)
@pytest.mark.parametrize(("width", "dark", "language"), [(1200, False, "en"), (360, True, "ru")])
def test_each_page_fits_and_is_told_in_the_browsers_language(
    browser: Browser, pages: Served, page: str, width: int, dark: bool, language: str
) -> None:
    browser.settle(language=language, width=width, dark=dark)
    browser.open(pages.url + page)
    assert browser.run("document.documentElement.lang") == language
    assert ("Потери" if language == "ru" else "Lost messages") in browser.text
    assert not browser.too_wide()
    name = page.partition("?")[0].strip("/") or "home"
    browser.screenshot(f"{name}-{width}-{'dark' if dark else 'light'}-{language}")


def test_from_the_link_of_an_alert_to_the_picture_of_the_lost_order(browser: Browser, pages: Served) -> None:
    about = labels(
        alertname="MessageUndelivered",
        severity="critical",
        team="on-call",
        vhost="/",
        flow="crm->mes",
        queue="mes.orders",
        reason="queue_empty",
    )
    browser.open(link(Alert(about, 1, None, 1, {}), pages.url))
    assert len(browser.all(".find")) == 1
    assert "The queue is empty, and it was never delivered" in browser.text
    assert "Have the sender send it again" in browser.text
    browser.find(".find a[href^='/order']").click()
    browser.wait(lambda: "/order?id=A-3" in browser.url)
    assert [lane.text for lane in browser.all(".story .lane")] == ["queue", "shop", "crm", "mes"]
    assert len(browser.all(".story .hop")) == 5
    assert len(browser.all(".story .hop.lost .cross")) == 1
    assert "never arrived" in browser.find(".story").text
    assert "stuck, nothing has happened for" in browser.find(".story .gone").text  # the stage that should have ended
    # as long as each waited: 66 s against 40 ms is the whole width against the least
    bars = {bar.get_attribute("width") for bar in browser.all(".story .wait")}
    assert max(map(float, filter(None, bars))) > 90 * min(map(float, filter(None, bars))) > 0
    browser.find("table a[href^='/message']").click()
    browser.wait(lambda: "/message" in browser.url)
    assert "How exact the time is" in browser.text


def test_search_finds_orders_and_messages_by_keyboard(browser: Browser, pages: Served) -> None:
    for wanted, page in (("A-5", "/order?id=A-5"), ("message-3", "/message?id=message-3")):
        browser.open(pages.url)
        box = browser.find("input[type=search]")
        box.send_keys(wanted, "\ue007")  # the enter key
        browser.wait(lambda page=page: browser.url.endswith(page))
    browser.open(pages.url + "/find?q=unheard-of")
    assert "knows no order and no message “unheard-of”" in browser.text
    browser.screenshot("nothing-1200-light-en")
    assert all("404" in complaint for complaint in browser.complaints())


def test_one_can_skip_to_the_content_by_keyboard(browser: Browser, pages: Served) -> None:
    browser.open(pages.url)
    browser.find("body").send_keys("\ue004")  # the tabulator
    assert browser.run("document.activeElement.className") == "skip"
    browser.find(".skip").send_keys("\ue007")
    assert browser.run("document.activeElement.id") == "content"


def test_filters_live_in_the_address(browser: Browser, pages: Served) -> None:
    browser.open(pages.url + "/lost")
    everything = len(browser.all(".find"))
    browser.find("select[name=state] option[value=stuck]").click()
    browser.find(".choose button").click()
    browser.wait(lambda: "state=stuck" in browser.url)
    assert everything > len(browser.all(".find")) == 1
    assert "the queue has no consumer" in browser.text
    browser.open(browser.url)
    assert browser.find("select[name=state]").get_attribute("value") == "stuck"
    browser.open(pages.url + "/lost?since=nonsense")
    assert "neither an age" in browser.find("[role=alert]").text


@pytest.mark.parametrize("page", [*ALL, "/lost.csv", "/ledger/lost", "/nowhere", "/-/metadata"])
def test_each_answer_has_safe_headers(pages: Served, page: str) -> None:
    _, headers, text = get(pages.url + page)
    policy = headers["content-security-policy"]
    assert "script-src 'self';" in policy and "frame-ancestors 'none'" in policy
    assert headers["x-frame-options"] == "DENY"
    assert headers["x-content-type-options"] == "nosniff"
    assert "no-store" in headers["cache-control"]
    assert "http://" not in text.replace("http://www.w3.org", "") or page.startswith("/ledger")


def test_the_engine_browses_filters_and_gives_json(browser: Browser, pages: Served) -> None:
    browser.open(pages.url + "/ledger/lost?flow=crm-%3Emes&state=stuck")
    assert "A-5" in browser.text
    browser.screenshot("engine-1200-light-en")
    browser.settle(dark=True)
    browser.open(pages.url + "/ledger")
    browser.screenshot("engine-1200-dark-en")
    status, _, text = get(pages.url + "/ledger/lost.json?state=stuck&_shape=array")
    assert status == 200 and '"order_id": "A-5"' in text
    status, _, text = get(pages.url + "/ledger/order_story.json?order_id=A-3&_shape=array")
    assert status == 200 and '"reason": "queue_empty"' in text


def test_names_that_others_can_point_here_are_refused(pages: Served) -> None:
    assert get(pages.url + "/lost", Host="evil.example.com")[0] == 403
    assert get(pages.url + "/lost", Host="localhost:8001")[0] == 200


def test_nothing_can_be_changed(pages: Served) -> None:
    request = urllib.request.Request(pages.url + "/lost", data=b"x=1", method="POST")
    with pytest.raises(urllib.error.HTTPError, match="403"):
        urllib.request.urlopen(request, timeout=30)
    assert get(pages.url + "/ledger?sql=" + quote("DELETE FROM gaps"))[0] == 403


@pytest.mark.parametrize(
    "page",
    ["/order?id=%ff%fe", "/find?q=%00%ff", "/lost?before=99999999999999999999.1", "/lost?since=9999-99-99", "/order"],
)
def test_no_address_is_too_strange(pages: Served, page: str) -> None:
    assert get(pages.url + page)[0] in (200, 404)
