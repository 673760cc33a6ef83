"""The commands of README.md and docs: run as they are written, or said to be not run, and then parsed at least."""

from __future__ import annotations

import asyncio
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from auditor.cli.main import auditor as cli
from auditor.tap.topology import permissions
from tests.acceptance.harness import BOUND, CANARIES, QUEUE, Auditor
from tests.acceptance.scene import open_scene

HOUSE = Path(__file__).parents[2]
PAGES = [HOUSE / "README.md", *sorted((HOUSE / "docs").rglob("*.md"))]
TOOLS = "auditor|docker|journalctl|make|pip|podman|rabbitmqctl|sqlite3|systemctl"
DAMAGED = "ledger.db.damaged-20261122T184500Z"


def fences(page: Path) -> Iterator[tuple[str, str]]:
    """Language and text of each block of a page."""
    for indent, language, text in re.findall(
        r"^( *)```(\w*)\n(.*?)^ *```$", page.read_text(), re.DOTALL | re.MULTILINE
    ):
        yield language, re.sub(rf"^{indent}", "", text, flags=re.MULTILINE)


def is_run(block: str) -> bool:
    return not block.startswith("# not run by the tests")


BLOCKS = {page: [text for language, text in fences(page) if language == "sh"] for page in PAGES}
# what is shown with its output, what is not run, and what stands in the text
SPOKEN = [
    (page.name, line)
    for page in PAGES
    for line in (
        *(
            line[2:]
            for language, text in fences(page)
            if not language
            for line in text.splitlines()
            if line[:2] == "$ "
        ),
        *(line for block in BLOCKS[page] if not is_run(block) for line in block.replace("\\\n", "").splitlines()),
        *re.findall(
            r"(?<!`)`((?:[A-Z_]+=\S+ )?(?:auditor|make) [^`]*)`", re.sub(r"```.*?```", "", page.read_text(), flags=re.S)
        ),
    )
]


async def run(block: str, auditor: Auditor) -> None:
    """Run the commands of a block as they stand there, but on the ledger and with the settings of a test."""
    for theirs, ours in {"/var/lib/auditor": str(auditor.folder), "/var/backups": f"{auditor.folder}/backups"}.items():
        block = block.replace(theirs, ours)
    lines = [shlex.split(line, comments=True) for line in block.splitlines()]
    if all(words[0] == "auditor" for words in lines):
        for words in lines:
            await asyncio.to_thread(command, words[1:], auditor)
    else:
        await asyncio.to_thread(shell, block, auditor)


def command(words: list[str], auditor: Auditor) -> None:
    """Run a command of the auditor, in this process: Python's start would be most of the time."""
    # the settings as their default place would have them, where the command does not say which ledger
    at = [] if "--ledger" in words else ["--config", str(auditor.config)]
    try:
        code = cli.main([*words, *at], standalone_mode=False) or 0
    except SystemExit as end:
        code = end.code
    assert code == (words == ["lost", "--fail"]), shlex.join(words)


def shell(block: str, auditor: Auditor) -> None:
    """Run what needs a shell."""
    assert shutil.which("sqlite3"), "sqlite3 is missing; on Debian, as root: apt-get install sqlite3"
    function = f'auditor() {{ {shlex.quote(sys.executable)} -m auditor.cli "$@"; }}'
    done = subprocess.run(
        ["bash", "-c", f"set -eu -o pipefail\n{function}\n{block}"],
        cwd=auditor.folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=BOUND,
    )
    assert done.returncode == 0, f"{block}\n{done.stdout}{done.stderr}"


@pytest.mark.timeout(180)
async def test_the_commands_do_what_they_say(auditor: Auditor) -> None:
    (auditor.folder / "backups").mkdir()
    auditor.settings["flows"] = [{"name": "crm->mes", "queues": ["mes.*"], "deadline": 1.0}]
    packaging, end = {"name": "PACKAGING", "system": "mes", "deadline": 1.0}, {"name": "SHIPPED", "system": "mes"}
    auditor.settings["stages"] = [packaging, end]
    auditor.start()
    await auditor.reading()
    async with open_scene(auditor, "commands") as scene:
        scene.prefix = ""
        for queue in ("mes.orders", "mes.line-1"):
            await scene.queue(queue)
        # one for each command that acknowledges
        await scene.publish("6f1c0e2a-…", "mes.orders", body=b'{"orderId": "A-1047"}')
        await scene.publish("m2", "mes.orders", body=b'{"orderId": "A-1048"}')
        await scene.publish("m3", "mes.line-1", body=b'{"orderId": "A-1049"}')
        await scene.publish("m4", "mes.line-2", body=b'{"orderId": "A-1050", "status": "PACKAGING"}')
        await scene.publish("m5", "mes.line-2", body=b'{"orderId": "A-1051", "status": "PACKAGING"}')
        await auditor.until(lambda reader: len(reader.lost(limit=9)) == 5, "the verdicts")
        await auditor.until(
            lambda reader: len(reader.stuck_entries(stage="PACKAGING", order=None)) == 2, "stuck orders"
        )
        await auditor.until(lambda reader: (row := auditor.status(reader)) and not row["problem"], "no problem")
        await run(f"sqlite3 -readonly ledger.db \"VACUUM INTO '{DAMAGED}'\"", auditor)
        for blocks in BLOCKS.values():
            for block in filter(is_run, blocks):
                await run(block, auditor)
        assert len(await auditor.answer("ack", "--list")) == 5


@pytest.mark.parametrize(("page", "line"), SPOKEN)
def test_what_is_not_run_is_a_command_all_the_same(page: str, line: str) -> None:
    words = shlex.split(line, comments=True)
    while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
        del words[0]
    if not words:
        return
    if words[0] == "make":
        targets = re.findall(r"^([a-z]+):", (HOUSE / "Makefile").read_text(), re.MULTILINE)
        assert words[1] in targets, f"{page}: {line}"
    elif Path(words[0]).name == "auditor" and len(words) > 1:
        context = click.Context(cli)
        name, found, arguments = cli.resolve_command(context, words[1:])
        assert found is not None
        if arguments:
            found.make_context(name, arguments, parent=context)  # UsageError where it is none


def test_commands_stand_in_blocks_of_their_own_kind() -> None:
    for page in PAGES:
        for language, text in fences(page):
            assert language not in ("bash", "console", "shell"), f"{page.name}: commands are called `sh`:\n{text}"
            if language == "":
                assert not re.search(rf"^({TOOLS}) ", text, re.MULTILINE), (
                    f"{page.name}: commands without `sh`:\n{text}"
                )


def test_the_permissions_are_the_least() -> None:
    (block,) = [block for block in BLOCKS[HOUSE / "README.md"] if "set_permissions" in block]
    assert tuple(shlex.split(block, comments=True)[-3:]) == permissions(QUEUE, CANARIES)
