"""Logs: text for people, JSON for machines, secrets for nobody."""

from __future__ import annotations

import io
import json
import logging

import pytest

from auditor import log


@pytest.fixture
def stream() -> io.StringIO:
    return io.StringIO()


def test_text_lines(stream: io.StringIO) -> None:
    log.setup("info", "text", stream=stream)
    logger = logging.getLogger("auditor.tap")
    logger.debug("not shown")
    logger.warning("connection lost", extra={"action": "connect", "cause": "reset by peer", "tries": 3, "none": None})
    line = stream.getvalue()
    assert line.endswith(
        'Z WARNING auditor.tap: connection lost action=connect cause="reset by peer" tries=3 none=None\n'
    )


def test_json_lines(stream: io.StringIO) -> None:
    log.setup("debug", "json", stream=stream)
    try:
        raise ValueError("of amqp://user:hunter2@broker")
    except ValueError:
        logging.getLogger("auditor").exception("failed", extra={"tries": 3, "level": "mine", "ok": True})
    (line,) = map(json.loads, stream.getvalue().splitlines())
    assert line["time"].endswith("Z")
    assert (line["level"], line["logger"], line["message"]) == ("error", "auditor", "failed")
    assert (line["tries"], line["level_"], line["ok"]) == (3, "mine", True)
    assert "ValueError: of amqp://***@broker" in line["exception"]


@pytest.mark.parametrize("kind", ["text", "json"])
def test_secrets_are_masked(stream: io.StringIO, kind: str) -> None:
    log.setup("info", kind, stream=stream)  # type: ignore[arg-type]
    extra = {"password": "hunter2", "access_token": "hunter2", "url": "amqp://user:hunter2@broker/", "list": ["x"]}
    logging.getLogger("auditor").info("to %s", "http://user:hunter2@broker", extra=extra)
    assert "hunter2" not in stream.getvalue()
    assert "broker/" in stream.getvalue()


def test_setting_up_again_replaces_the_handler(stream: io.StringIO) -> None:
    log.setup(stream=io.StringIO())
    log.setup("warning", stream=stream)
    logging.getLogger("auditor").warning("once")
    assert stream.getvalue().count("once") == 1


def test_the_libraries_noise_is_left_out(stream: io.StringIO) -> None:
    log.setup("debug", stream=stream)
    logging.getLogger("aio_pika.tools").error("callback failed")
    logging.getLogger("aiormq").debug("frame")
    logging.getLogger("aiormq").warning("kept")
    assert [line.split(": ")[1] for line in stream.getvalue().splitlines()] == ["kept"]
