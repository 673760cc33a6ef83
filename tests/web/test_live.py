"""The pages beside a ledger that is being written to."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from urllib.parse import urlencode

import pytest

from auditor.core.changes import Changes
from auditor.ledger.writer import Ledger
from tests.ledger import rows
from tests.ledger.synthetic import status
from tests.web.browser import Browser
from tests.web.conftest import Serve
from tests.web.story import Story, write
from tests.web.test_pages import get

pytestmark = pytest.mark.timeout(120)

ENDLESS = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT count(*) FROM n, messages"


def test_the_overview_refreshes_itself_while_the_auditor_writes(browser: Browser, tmp_path: Path, serve: Serve) -> None:
    path, now = tmp_path / "live.db", time.time_ns() // 1000
    write(path, now)
    pages = serve(path)
    browser.open(pages.url)
    assert "A-42" not in browser.text
    story = Story(path, time.time_ns() // 1000 + 5_000_000)
    story.send("A-42", "INITIATED", "shop->crm", now - 2 * 3600 * 1_000_000, wait=4_000)
    story.commit()
    browser.wait(lambda: "A-42" in browser.find("main").text)
    story.close()


def test_an_expensive_question_is_stopped_and_holds_up_nobody(tmp_path: Path, serve: Serve) -> None:
    path = tmp_path / "busy.db"
    write(path, time.time_ns() // 1000)
    pages = serve(path, '[web]\nanonymous = "admin"\nquery_time = "2s"\n')
    answers: list[tuple[int, dict[str, str], str]] = []
    asked = f"{pages.url}/ledger.json?{urlencode({'sql': ENDLESS})}"
    asking = threading.Thread(target=lambda: answers.append(get(asked)))
    ledger = Ledger.open(path)
    try:
        asking.start()
        written, slowest = 0, 0.0
        while asking.is_alive():
            began = time.monotonic()
            number = ledger.next_message_id
            changes = Changes()
            changes.messages.append(rows.message(number))
            changes.hops.append(rows.delivered(number))
            ledger.commit(changes, status=status())
            slowest = max(slowest, time.monotonic() - began)
            written += 1
    finally:
        asking.join(30)
        ledger.close()
    ((code, _, text),) = answers
    assert code == 400 and "interrupted" in text.lower()
    assert written > 10
    assert slowest < 2  # nothing waited for the question


def test_it_reads_a_ledger_whose_auditor_is_gone_and_whose_folder_is_closed(tmp_path: Path, serve: Serve) -> None:
    folder = tmp_path / "closed"
    folder.mkdir()
    write(folder / "ledger.db", time.time_ns() // 1000 - 3_600_000_000)
    folder.chmod(0o555)
    try:
        pages = serve(folder / "ledger.db")
        code, _, text = get(pages.url)
        assert code == 200 and "No auditor is at work" in text
        assert get(pages.url + "/ledger/lost.json")[0] == 200
    finally:
        folder.chmod(0o755)
