"""docs/operating.md as it is written: backup and restore, its settings, and a heading for each alert."""

from __future__ import annotations

import asyncio
import re
import shutil
import time
from pathlib import Path

import pytest

from auditor.core import alerts
from auditor.settings import load
from tests.acceptance.harness import QUEUE, Auditor, command
from tests.acceptance.scene import open_scene
from tests.acceptance.test_commands import BLOCKS, shell

HOUSE = Path(__file__).parents[2]
PAGE = HOUSE / "docs" / "operating.md"
DOC = PAGE.read_text()
SETTINGS = re.findall(r"^```toml\n(.*?)^```", DOC, re.DOTALL | re.MULTILINE)
HEADINGS = set(re.findall(r"^#+ (.*)", DOC, re.MULTILINE))


@pytest.mark.timeout(180)
async def test_a_backup_is_restored_and_nobody_is_accused(auditor: Auditor) -> None:
    backup = next(block for block in BLOCKS[PAGE] if "VACUUM INTO" in block)
    (auditor.folder / "backups").mkdir()
    auditor.settings["flows"][0]["deadline"] = 20.0  # longer than it takes to come to the backup
    auditor.start()
    await auditor.reading()
    async with open_scene(auditor, "restore") as scene:
        inbox = await scene.queue("inbox")
        await scene.publish("before")
        await auditor.until(lambda reader: reader.message(scene.prefix + "before"), "the message is seen")
        await shell(backup, auditor)
        # delivered, and recorded, in the ledger that is given up
        await scene.consume(inbox)
        await scene.arrived(1)
        await auditor.seen()
        await asyncio.to_thread(auditor.stop)
        assert (await command("status", "--fail", "--ledger", auditor.ledger)).code == 1, "it has ended"
        # as the page says, without systemd
        auditor.ledger.rename(auditor.folder / "ledger.db.before")
        for name in ("ledger.db-wal", "ledger.db-shm"):
            (auditor.folder / name).unlink(missing_ok=True)
        shutil.copy(auditor.folder / "backups" / "ledger.db", auditor.ledger)
        channel = await scene.connection.channel()
        await channel.queue_delete(QUEUE)
        auditor.start()
        await auditor.reading()
        # a loss after it is found, and so the watermark is past the deadline of what was in flight
        end = time.time() + 20
        await scene.publish("after", "nowhere")
        await auditor.until(
            lambda reader: time.time() > end and reader.message(scene.prefix + "after")[0]["state"] == "lost",
            "a verdict",
        )
        (row,) = auditor.ask(lambda reader: reader.message(scene.prefix + "before"))
        assert (row["state"], row["reason"]) == ("unknown", "queue_gone")
        assert auditor.ask(lambda reader: reader.gaps())[0]["reason"] == "queue_gone"


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
