"""The pages beside a ledger that is being written to."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path
from urllib.parse import urlencode

import pytest

from auditor.core.changes import Changes
from auditor.ledger.writer import Ledger
from tests.ledger import rows
from tests.ledger.synthetic import status
from tests.web.conftest import Serve
from tests.web.story import write
from tests.web.test_pages import get

pytestmark = pytest.mark.timeout(120)

ENDLESS = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT count(*) FROM n, messages"


def test_an_expensive_question_is_stopped_and_holds_up_nobody(tmp_path: Path, serve: Serve) -> None:
    path = tmp_path / "busy.db"
    write(path, time.time_ns() // 1000)
    pages = serve(path, '[web]\nanonymous = "admin"\nquery_time = "2s"\n')
    asked = f"{pages.url}/ledger.json?{urlencode({'sql': ENDLESS})}"
    answers: list[tuple[int, str, float]] = []  # status, text, time

    def ask() -> None:
        code, _, text = get(asked)
        answers.append((code, text, time.monotonic()))

    asking = threading.Thread(target=ask)
    ledger = Ledger.open(path)
    commits: list[tuple[float, float]] = []  # begin and end
    try:
        asking.start()
        while asking.is_alive():
            began = time.monotonic()
            number = ledger.next_message_id
            changes = Changes()
            changes.messages.append(rows.message(number))
            changes.hops.append(rows.delivered(number))
            ledger.commit(changes, status=status())
            commits.append((began, time.monotonic()))
    finally:
        asking.join(30)
        ledger.close()
    ((code, text, answered),) = answers
    assert code == 400 and "interrupted" in text.lower()
    # The question was under way for the two seconds before its answer: had it held up the writer, no commit would have
    # begun and ended within them.
    assert [began for began, ended in commits if began > answered - 1.5 and ended < answered]


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


def test_the_engine_goes_over_to_the_ledger_that_takes_the_place_of_another(tmp_path: Path, serve: Serve) -> None:
    """As when one is damaged and moved aside, or a backup is restored."""
    path, other = tmp_path / "ledger.db", tmp_path / "other.db"
    write(path, time.time_ns() // 1000)
    Ledger.open(other).close()
    pages = serve(path)
    question = pages.url + "/ledger/messages.json?_shape=array&_size=1"
    for _ in range(8):  # on each of its threads
        assert len(json.loads(get(question)[2])) == 1
    path.rename(tmp_path / "ledger.db.damaged")
    for name in ("ledger.db-wal", "ledger.db-shm"):
        (tmp_path / name).unlink(missing_ok=True)
    other.rename(path)
    assert [json.loads(get(question)[2]) for _ in range(8)] == [[]] * 8
