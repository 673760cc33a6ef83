"""What an operator gets wrong, or finds broken: a letter that helps, and an exit code that scripts can go by."""

from __future__ import annotations

import asyncio
import shlex
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from auditor.demo.broker import PrivateBroker
from auditor.demo.server import Broker
from tests.acceptance.harness import QUEUE, Answer, Auditor, command, toml
from tests.support.observers import Witness

NOBODY = "amqp://127.0.0.1:1"  # a port on which nobody listens

# the broker's own exit codes
BAD_NEWS, WRONG, OUT_OF_REACH = 1, 2, 3


def check_letter(answer: Answer, code: int, *words: str) -> None:
    """Check that an answer is a letter: the exit code, all the words, nothing that is for programmers."""
    text = answer.out + answer.err
    assert answer.code == code, text
    assert "Traceback" not in text
    for word in words:
        assert word in text, text


# wrong settings


async def test_all_mistakes_are_told_at_once(tmp_path: Path) -> None:
    config = tmp_path / "auditor.toml"
    config.write_text(
        toml(
            {
                "broker": {"url": "http://somewhere", "password": "hunter2", "pasword": "hunter3"},
                "tap": {"prefetch": 0},
                "flows": [{"name": "a", "deadline": "soon"}],
            }
        )
    )
    for name in ("run", "check"):
        answer = await command(name, "--config", config)
        check_letter(answer, WRONG, "broker.url", "broker.pasword", "tap.prefetch", "deadline")
        assert "hunter" not in answer.out + answer.err


async def test_a_settings_file_that_is_missing_is_named(tmp_path: Path) -> None:
    for name in ("run", "check", "lost", "status"):
        check_letter(await command(name, "--config", tmp_path / "no.toml"), WRONG, str(tmp_path / "no.toml"))


async def test_a_settings_file_that_is_no_toml_is_told_where(tmp_path: Path) -> None:
    config = tmp_path / "auditor.toml"
    config.write_text('[broker]\nurl = "amqp://127.0.0.1\n')
    check_letter(await command("run", "--config", config), WRONG, str(config), "line 2")


@pytest.mark.parametrize(
    "arguments", [["lost", "--since", "yesterday"], ["hops", "--state", "gone"], ["message"], ["tell"]]
)
async def test_wrong_use_is_told_from_bad_news(arguments: list[str]) -> None:
    answer = await command(*arguments)
    check_letter(answer, WRONG)
    assert answer.err
    assert not answer.out


# the broker


@pytest.fixture
def witness() -> Iterator[Witness]:
    witness = Witness()
    yield witness
    witness.close()


async def test_check_finds_all_well(auditor: Auditor, witness: Witness) -> None:
    auditor.settings["alerts"] = {"alertmanagers": [witness.url], "webhooks": [f"{witness.url}/hook"]}
    auditor.write_config()
    answer = await command("check", "--config", auditor.config)
    check_letter(answer, 0, "off; `auditor run` will turn it on", "takes alerts", "webhook 127.0.0.1")
    auditor.start()
    await auditor.reading()
    check_letter(await command("check", "--config", auditor.config), 0, "is there")
    assert "BAD" not in answer.out


async def test_check_leaves_nothing_behind(auditor: Auditor) -> None:
    api = auditor.broker.management
    auditor.write_config()
    check_letter(await command("check", "--config", auditor.config), 0)
    assert await asyncio.to_thread(api.get, "queues", auditor.vhost) == []
    assert not auditor.ledger.exists()


async def test_check_says_that_the_broker_does_not_answer(auditor: Auditor) -> None:
    auditor.settings["broker"]["url"] = NOBODY
    auditor.write_config()
    answer = await command("check", "--config", auditor.config)
    check_letter(answer, BAD_NEWS, "BAD", "127.0.0.1:1", "broker.url")
    assert not answer.err
    assert auditor.password not in answer.out + answer.err


async def test_check_says_that_the_password_is_wrong(auditor: Auditor) -> None:
    auditor.settings["broker"]["password"] = "hunter2"
    auditor.write_config()
    answer = await command("check", "--config", auditor.config)
    check_letter(answer, BAD_NEWS, "BAD", "broker.user")
    assert "hunter2" not in answer.out + answer.err


async def test_check_says_that_the_management_password_is_wrong(auditor: Auditor) -> None:
    auditor.settings["broker"]["management"]["password"] = "hunter2"
    auditor.write_config()
    answer = await command("check", "--config", auditor.config)
    check_letter(answer, BAD_NEWS, "BAD", "broker.management.user", "401")
    assert "hunter2" not in answer.out + answer.err


async def test_check_says_that_the_vhost_is_missing(auditor: Auditor) -> None:
    auditor.settings["broker"]["vhosts"] = ["no-such-vhost"]
    auditor.write_config()
    check_letter(await command("check", "--config", auditor.config), BAD_NEWS, "BAD", "no-such-vhost")


async def test_check_says_how_to_turn_the_firehose_on(auditor: Auditor) -> None:
    auditor.settings["broker"]["management"] = {}
    auditor.write_config()
    answer = await command("check", "--config", auditor.config)
    check_letter(answer, BAD_NEWS, f"rabbitmqctl trace_on -p {auditor.vhost}")
    await grant(auditor.broker, answer.out, "trace_on")
    check_letter(await command("check", "--config", auditor.config), 0, "on")


@pytest.mark.parametrize("right", ["none at all", "configure", "write", "read"])
async def test_the_command_that_check_prints_grants_what_is_missing(auditor: Auditor, right: str) -> None:
    api, user = auditor.broker.management, auditor.user
    present = await asyncio.to_thread(api.get, "permissions", auditor.vhost, user)
    if right == "none at all":
        await asyncio.to_thread(api.delete, "permissions", auditor.vhost, user)
    else:
        rights = {name: present[name] for name in ("configure", "write", "read")} | {right: "^$"}
        await asyncio.to_thread(lambda: api.put("permissions", auditor.vhost, user, json=rights))
    auditor.write_config()
    answer = await command("check", "--config", auditor.config)
    check_letter(answer, BAD_NEWS, "BAD", "set_permissions")
    await grant(auditor.broker, answer.out, "set_permissions")
    check_letter(await command("check", "--config", auditor.config), 0)
    auditor.start()
    await auditor.reading()


async def grant(broker: Broker, text: str, what: str) -> None:
    """Run the rabbitmqctl command that stands in a text, as it stands there."""
    (line,) = (line for line in text.splitlines() if f"rabbitmqctl {what}" in line)
    _, *arguments = shlex.split(line)
    if isinstance(broker, PrivateBroker):
        await asyncio.to_thread(broker.ctl, *arguments)
    elif what == "set_permissions":
        match arguments:
            case [_, "-p", vhost, user, configure, write, read]:
                rights = {"configure": configure, "write": write, "read": read}
                await asyncio.to_thread(lambda: broker.management.put("permissions", vhost, user, json=rights))
            case _:
                raise AssertionError(line)
    else:
        assert arguments[:2] == ["trace_on", "-p"]
        await asyncio.to_thread(lambda: broker.management.put("vhosts", arguments[2], json={"tracing": True}))


async def test_a_running_auditor_waits_for_the_broker_and_says_why_once(auditor: Auditor) -> None:
    auditor.settings["broker"]["url"] = NOBODY
    auditor.settings["tap"]["reconnect_max"] = 0.2
    auditor.start()
    problem = await auditor.until(lambda reader: (row := auditor.status(reader)) and row["problem"], "a problem")
    assert "127.0.0.1:1" in problem
    began = await asyncio.to_thread(time.time)
    # it goes on trying, and its status goes on being written
    await auditor.until(
        lambda reader: (row := auditor.status(reader)) and row["updated_at"] > (began + 2) * 1e6, "more attempts"
    )
    (status,) = await auditor.answer("status")
    assert (status["running"], status["connected"]) == (True, 0)
    assert "not connected" in await auditor.shown("status")
    assert auditor.log.count("Could not connect to the broker") == 1
    assert await asyncio.to_thread(auditor.stop) == 0


async def test_a_running_auditor_is_well_again_once_it_may_do_what_it_must(auditor: Auditor) -> None:
    api, user = auditor.broker.management, auditor.user
    rights = await asyncio.to_thread(api.get, "permissions", auditor.vhost, user)
    await asyncio.to_thread(
        lambda: api.put("permissions", auditor.vhost, user, json={"configure": "", "write": "", "read": ""})
    )
    auditor.start()
    problem = await auditor.until(lambda reader: (row := auditor.status(reader)) and row["problem"], "a problem")
    assert "auditor check" in problem
    await asyncio.to_thread(lambda: api.put("permissions", auditor.vhost, user, json=rights))
    await auditor.reading()
    await auditor.until(
        lambda reader: (row := auditor.status(reader)) and row["problem"] is None, "no problem any more"
    )
    assert "All is well again" in auditor.log


# the ledger


async def run_until_it_ends(auditor: Auditor) -> Answer:
    auditor.write_config()
    return await command("run", "--config", auditor.config)


async def test_a_ledger_folder_that_is_no_folder_is_told(auditor: Auditor) -> None:
    (auditor.folder / "file").write_text("")
    auditor.settings["ledger"]["path"] = str(auditor.folder / "file" / "ledger.db")
    check_letter(await run_until_it_ends(auditor), OUT_OF_REACH, str(auditor.folder / "file"))
    check_letter(await command("check", "--config", auditor.config), BAD_NEWS, "BAD", str(auditor.folder / "file"))


async def test_a_ledger_that_cannot_be_written_is_told(auditor: Auditor) -> None:
    # a directory in the place of the file: refused even to root, whom no permissions hold back
    auditor.ledger.mkdir()
    check_letter(await run_until_it_ends(auditor), OUT_OF_REACH, str(auditor.ledger))


async def test_a_file_that_is_no_ledger_is_left_alone(auditor: Auditor) -> None:
    auditor.ledger.write_text("a letter to my aunt, who has no database" * 100)
    before = auditor.ledger.read_bytes()
    check_letter(await run_until_it_ends(auditor), OUT_OF_REACH, str(auditor.ledger))
    check_letter(await command("lost", "--ledger", auditor.ledger), OUT_OF_REACH, str(auditor.ledger))
    check_letter(await command("check", "--config", auditor.config), BAD_NEWS, str(auditor.ledger))
    assert auditor.ledger.read_bytes() == before


async def test_a_database_of_somebody_else_is_left_alone(auditor: Auditor) -> None:
    with closing(sqlite3.connect(auditor.ledger)) as other:
        other.execute("CREATE TABLE recipes (name TEXT)")
        other.commit()
    before = auditor.ledger.read_bytes()
    check_letter(await run_until_it_ends(auditor), OUT_OF_REACH, str(auditor.ledger))
    check_letter(await command("lost", "--ledger", auditor.ledger), OUT_OF_REACH, str(auditor.ledger))
    assert auditor.ledger.read_bytes() == before


async def test_a_ledger_of_a_newer_auditor_is_left_alone(auditor: Auditor) -> None:
    auditor.start()
    await auditor.reading()
    assert await asyncio.to_thread(auditor.stop) == 0
    with closing(sqlite3.connect(auditor.ledger)) as ledger:
        ledger.execute(
            "INSERT INTO _sqlite_migrations (migration_set, name, applied_at) "
            "SELECT migration_set, 'm999_of_the_future', applied_at FROM _sqlite_migrations LIMIT 1"
        )
        ledger.commit()
    check_letter(await run_until_it_ends(auditor), OUT_OF_REACH, str(auditor.ledger), "newer")
    check_letter(await command("lost", "--ledger", auditor.ledger), OUT_OF_REACH, str(auditor.ledger), "newer")


async def test_two_auditors_do_not_share_a_ledger(auditor: Auditor) -> None:
    auditor.start()
    await auditor.reading()
    answer = await command("run", "--config", auditor.config)
    check_letter(answer, OUT_OF_REACH, str(auditor.ledger))
    await auditor.reading()


async def test_a_ledger_that_is_not_there_is_told(tmp_path: Path) -> None:
    for arguments in (["lost"], ["hops"], ["status"], ["order", "A-1"], ["message", "m1"]):
        ledger = tmp_path / "no.db"
        check_letter(await command(*arguments, "--ledger", ledger), OUT_OF_REACH, str(ledger))
        assert not await asyncio.to_thread(ledger.exists)


async def test_an_empty_ledger_has_no_bad_news(auditor: Auditor) -> None:
    auditor.settings["broker"]["url"] = NOBODY
    auditor.start()
    await auditor.until(auditor.status, "a ledger")
    answer = await command("lost", "--fail", "--ledger", auditor.ledger)
    check_letter(answer, 0)
    assert not answer.out
    assert answer.err
    for arguments in (["order", "A-1"], ["message", "m1"]):
        check_letter(await command(*arguments, "--ledger", auditor.ledger), BAD_NEWS, arguments[1])


async def test_lost_messages_can_fail_a_script(auditor: Auditor) -> None:
    auditor.start()
    await auditor.reading()
    api = auditor.broker.management
    message = {"routing_key": "nobody", "payload": "", "payload_encoding": "string", "properties": {}}
    await asyncio.to_thread(lambda: api.post("exchanges", auditor.vhost, "amq.direct", "publish", json=message))
    await auditor.until(lambda reader: reader.lost(), "an unroutable message")
    check_letter(await command("lost", "--ledger", auditor.ledger), 0, "no_queue")
    check_letter(await command("lost", "--fail", "--ledger", auditor.ledger), BAD_NEWS, "no_queue")
    # by the running auditor's settings, too, and after its death
    check_letter(await command("lost", "--fail", "--config", auditor.config), BAD_NEWS, "no_queue")
    assert await asyncio.to_thread(auditor.stop) == 0
    check_letter(await command("lost", "--fail", "--ledger", auditor.ledger), BAD_NEWS, "no_queue")
    check_letter(await command("lost", "--fail", "--reason", "waiting", "--ledger", auditor.ledger), 0)
    assert QUEUE in {queue["name"] for queue in await asyncio.to_thread(api.get, "queues", auditor.vhost)}
