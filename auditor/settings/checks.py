"""Checks of values that are read together: the parts of a URL, a bound set by another option, names used twice.

As in `units`, what is wrong raises ValueError with what was expected.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple, TypeVar
from urllib.parse import urlsplit

from pydantic import ValidationInfo

AMQP = {"amqp": 5672, "amqps": 5671}
HTTP = {"http": 15672, "https": 15671}  # the ports of the management API

_Number = TypeVar("_Number", int, float)


class Address(NamedTuple):
    """What a URL says about where to connect."""

    host: str
    port: int
    tls: bool


class Taken:
    """The name of a flow that another flow has already."""

    def __init__(self, name: str) -> None:
        """Take the name."""
        self.name = name

    def __str__(self) -> str:
        return self.name


def address(url: str, ports: Mapping[str, int], section: str) -> Address:
    """Take a URL apart that may have one of these schemes, with their usual ports; nothing but host and port beside."""
    expected = " or ".join(f"{scheme}://HOST:PORT" for scheme in ports)
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise ValueError(expected) from None
    if parts.password is not None or parts.username is not None:
        raise ValueError(f"{expected} without user and password; they go to {section}.user and {section}.password")
    path = parts.path.strip("/")
    if path and ports is AMQP:
        raise ValueError(f"{expected} without a path; virtual hosts go to broker.vhosts")
    if parts.scheme not in ports or not parts.hostname or path or parts.query or parts.fragment:
        raise ValueError(expected)
    return Address(parts.hostname, port or ports[parts.scheme], parts.scheme.endswith("s"))


def web_address(url: str, secrets: str) -> None:
    """Check a URL of something that is spoken to over HTTP; it may have a path, and no user and password."""
    expected = "http://HOST:PORT or https://HOST:PORT"
    try:
        parts = urlsplit(url)
        parts.port  # noqa: B018  it is checked when it is asked for
    except ValueError:
        raise ValueError(expected) from None
    if parts.username is not None or parts.password is not None:
        raise ValueError(f"{expected} without user and password; what proves who we are goes to {secrets}")
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
        raise ValueError(expected)


def at_least(value: _Number, other: str, info: ValidationInfo) -> _Number:
    """Check a value against an option read before it, when that one was right."""
    least = info.data.get(other.rpartition(".")[2])
    if least is not None and value < least:
        raise ValueError(f"at least {other}, which is {least:.12g}")
    return value
