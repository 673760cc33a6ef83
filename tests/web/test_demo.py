"""The demo's ledger in the pages: what was planned to go wrong is what somebody sees."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from auditor.demo.server import Broker
from tests.web.browser import Browser
from tests.web.conftest import Serve

pytestmark = pytest.mark.timeout(180)


def test_the_demos_lost_messages_are_found_from_the_overview(
    browser: Browser, broker: Broker, tmp_path: Path, serve: Serve
) -> None:
    ledger = tmp_path / "demo.db"
    done = subprocess.run(
        [
            *(sys.executable, "-m", "auditor.cli", "demo", "--seconds", "4", "--seed", "5", "--ledger", str(ledger)),
            *("--broker-url", f"{broker.scheme}://{broker.user}@{broker.host}:{broker.port}"),
            *("--management-url", broker.management_url),
        ],
        env=os.environ | {"AUDITOR_DEMO_PASSWORD": broker.password, "TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
        timeout=150,
    )
    # whether all was found is the demo's own test; the pages show what was
    assert done.returncode in (0, 1) and ledger.exists(), done.stderr
    pages = serve(ledger)
    browser.open(pages.url)
    assert "crm->mes" in browser.find(".chart").text
    browser.screenshot("demo-home-1200-light-en")
    browser.open(pages.url + "/lost?state=lost")
    browser.find(".find a[href^='/order']").click()
    browser.wait(lambda: browser.all(".story"))
    assert {lane.text for lane in browser.all(".story .lane")} == {"queue", "shop", "crm", "mes"}
    assert len(browser.all(".story .hop.lost .cross")) == 1
    assert "mes.line-" in browser.find(".story .hop.lost").text
    browser.screenshot("demo-order-1200-light-en")
