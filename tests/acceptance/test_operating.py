"""docs/operating.md as it is written: backup and restore, its settings, and a heading for each alert."""

from __future__ import annotations

import asyncio
import re
import shutil
import signal
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from auditor.core import alerts
from auditor.ledger.queries import Reader
from auditor.settings import load
from tests.acceptance.harness import Auditor, command
from tests.acceptance.scene import open_scene

HOUSE = Path(__file__).parents[2]
DOC = (HOUSE / "docs" / "operating.md").read_text()
SETTINGS = re.findall(r"^```toml\n(.*?)^```", DOC, re.DOTALL | re.MULTILINE)
HEADINGS = set(re.findall(r"^#+ (.*)", DOC, re.MULTILINE))


@pytest.mark.timeout(180)
async def test_a_backup_is_restored_and_nobody_is_accused(auditor: Auditor) -> None:
    auditor.settings["flows"][0]["deadline"] = 6.0  # longer than it takes to come to the backup
    backup = auditor.folder / "backup.db"
    auditor.start()
    await auditor.reading()
    async with open_scene(auditor, "restore") as scene:
        inbox = await scene.queue("inbox")
        await scene.publish("before")
        await auditor.until(lambda reader: reader.message(scene.prefix + "before"), "the message is seen")
        with closing(sqlite3.connect(f"file:{auditor.ledger}?mode=ro", uri=True)) as ledger:
            ledger.execute("VACUUM INTO ?", (str(backup),))
        # delivered, and recorded, in the ledger that is given up
        await scene.consume(inbox)
        await scene.arrived(1)
        await auditor.seen()
        await auditor.seen()  # and canaries tell that it was
        auditor.signal(signal.SIGKILL)
        await asyncio.to_thread(auditor.wait)
        await scene.publish("meanwhile")
        await scene.arrived(2)
        # as the page says, without systemd
        auditor.ledger.rename(auditor.folder / "ledger.db.before")
        for name in ("ledger.db-wal", "ledger.db-shm"):
            (auditor.folder / name).unlink(missing_ok=True)
        shutil.copy(backup, auditor.ledger)
        until = auditor.ask(Reader.status)[0]["watermark"]
        auditor.start()
        await auditor.reading()
        _, gap = await auditor.gaps(2)
        assert (gap["reason"], gap["from_at"]) == ("other_ledger", until)
        await scene.becomes("meanwhile", "delivered")
        # a loss after it is found, and so the watermark is past the deadline of what was in flight
        await scene.publish("after", "nowhere")
        await scene.becomes("after", "lost")
        (row,) = auditor.ask(lambda reader: reader.message(scene.prefix + "before"))
        assert (row["state"], row["reason"]) == ("unknown", "blind")
        # once, and for the ledger that was restored alone
        for end in (signal.SIGKILL, signal.SIGTERM):
            auditor.signal(end)
            await asyncio.to_thread(auditor.wait)
            await scene.publish("away")
            code = (await command("status", "--fail", "--ledger", auditor.ledger)).code
            assert code == 1 or end == signal.SIGKILL, "it has ended, and has said so if it could"
            auditor.start()
            await auditor.reading()
        assert len(auditor.ask(lambda reader: reader.gaps(limit=None))) == 2


@pytest.mark.parametrize("text", SETTINGS)
def test_the_settings_are_right(text: str, tmp_path: Path) -> None:
    file = tmp_path / "auditor.toml"
    file.write_text(text)
    load(file)


def test_each_alert_has_its_heading() -> None:
    ours = set(re.findall(r'"((?:Message|Order|Auditor)[A-Z]\w+)"', Path(alerts.__file__).read_text()))
    assert len(ours) >= 8
    rules = (HOUSE / "config" / "prometheus" / "rules.yml").read_text()
    theirs = set(re.findall(r"- alert: (\w+)", rules))
    assert ours | theirs <= HEADINGS
    told = (HOUSE / "docs" / "alerts.md").read_text()
    for name in ours:
        assert f"[`{name}`](operating.md#{name.lower()})" in told


@pytest.mark.parametrize("page", ["operating.md", "alerts.md"])
def test_links_lead_somewhere(page: str) -> None:
    text = (HOUSE / "docs" / page).read_text()
    for file, heading in re.findall(r"\]\(([^)#:]*)(?:#([^)]*))?\)", text):
        target = HOUSE / "docs" / (file or page)
        assert target.exists(), file
        if heading:
            titles = re.findall(r"^#+ (.*)", target.read_text(), re.MULTILINE)
            assert heading in {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}
