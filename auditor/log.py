"""Logging to stderr: constant messages, what varies in `extra`, as text for people or JSON for machines."""

from __future__ import annotations

import json
import logging
import re
import sys
from datetime import UTC, datetime
from typing import Any, Literal, TextIO

# what a record has without any `extra`
_PLAIN = frozenset(vars(logging.LogRecord("", 0, "", 0, "", (), None))) | {"message", "asctime", "taskName"}
_SECRET = re.compile(r"passw|secret|token|credential", re.IGNORECASE)
_USERINFO = re.compile(r"(\w://)[^\s/@]+@")
_MASK = "***"


def setup(
    level: str = "info", format: Literal["text", "json"] = "text", *, stream: TextIO | None = None
) -> logging.Handler:
    """Make the root logger write to stderr (or the stream) from this level on; gives the handler."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonFormatter() if format == "json" else TextFormatter())
    root = logging.getLogger()
    for old in [old for old in root.handlers if isinstance(old.formatter, TextFormatter | JsonFormatter)]:
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(level.upper())
    # They log an error with a traceback at each lost connection; the tap says why a connection was lost, once.
    for noisy in ("aio_pika.tools", "aiormq.connection"):
        logging.getLogger(noisy).setLevel(logging.CRITICAL)
    for chatty in ("aio_pika", "aiormq", "asyncio"):
        logging.getLogger(chatty).setLevel(max(logging.WARNING, logging.getLevelName(level.upper())))
    return handler


class TextFormatter(logging.Formatter):
    """One line: time, level, logger, message, then key=value for what varies; a traceback below it."""

    def format(self, record: logging.LogRecord) -> str:
        """Write a record as text."""
        words = [_time(record), f"{record.levelname:<7}", f"{record.name}:", _masked(record.getMessage())]
        words += [f"{key}={_quoted(value)}" for key, value in _extra(record).items()]
        line = " ".join(words)
        if record.exc_info:
            line += "\n" + _masked(self.formatException(record.exc_info))
        return line


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time, level, logger, message, and what varies under its own names."""

    def format(self, record: logging.LogRecord) -> str:
        """Write a record as JSON."""
        line: dict[str, Any] = {
            "time": _time(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": _masked(record.getMessage()),
        }
        for key, value in _extra(record).items():
            # never in place of the four above
            line[f"{key}_" if key in line else key] = value
        if record.exc_info:
            line["exception"] = _masked(self.formatException(record.exc_info))
        return json.dumps(line, ensure_ascii=False, default=str)


def _extra(record: logging.LogRecord) -> dict[str, Any]:
    """Give what was passed as `extra`, with secrets masked: by their name, and inside URLs."""
    extra = {key: value for key, value in vars(record).items() if key not in _PLAIN}
    for key, value in extra.items():
        if _SECRET.search(key):
            extra[key] = _MASK
        elif not isinstance(value, int | float | bool | None):
            extra[key] = _masked(str(value))
    return extra


def _masked(text: str) -> str:
    return _USERINFO.sub(rf"\1{_MASK}@", text)


def _quoted(value: Any) -> str:
    text = str(value)
    return text if text and not re.search(r'[\s"=]', text) else json.dumps(text, ensure_ascii=False)


def _time(record: logging.LogRecord) -> str:
    return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
