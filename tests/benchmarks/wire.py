"""An AMQP connection as a bare socket: for traffic and consumers that must cost less than any library."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from struct import Struct
from typing import Any
from urllib.parse import unquote, urlsplit

from pamqp import commands
from pamqp.frame import marshal, unmarshal

_FRAME = Struct(">BHL")
_DELIVER = b"\x00\x3c\x00\x3c"
_ACK = Struct(">BHLLQBB")
_BASIC_ACK = 60 << 16 | 80
_TIMEOUT = 20.0  # seconds for one answer


class RawConnection:
    """One connection with channel 1 open. Blocking until `socket` is used otherwise."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self.socket = socket.create_connection((parts.hostname, parts.port), _TIMEOUT)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._left = b""
        self.socket.sendall(b"AMQP\x00\x00\x09\x01")
        self._answer("Connection.Start")
        secret = f"\0{unquote(parts.username or '')}\0{unquote(parts.password or '')}"
        self._send(commands.Connection.StartOk({}, "PLAIN", secret, "en_US"), 0)
        tune = self._answer("Connection.Tune")
        self._send(commands.Connection.TuneOk(tune.channel_max, tune.frame_max, 0), 0)
        self._send(commands.Connection.Open(unquote(parts.path[1:])), 0)
        self._answer("Connection.OpenOk")
        self.call(commands.Channel.Open(), "Channel.OpenOk")

    def call(self, method: Any, answer: str) -> Any:
        """Send a method on channel 1 and return its answer; RuntimeError when it is another."""
        self._send(method, 1)
        return self._answer(answer)

    def _send(self, method: Any, channel: int) -> None:
        self.socket.sendall(marshal(method, channel))

    def _answer(self, name: str) -> Any:
        while True:
            if len(self._left) >= 7:
                size = _FRAME.unpack_from(self._left)[2] + 8
                if len(self._left) >= size:
                    _, _, frame = unmarshal(self._left[:size])
                    self._left = self._left[size:]
                    if frame.name != name:
                        raise RuntimeError(f"{name} was expected of the broker, and it said {frame.name}: {frame}")
                    return frame
            data = self.socket.recv(1 << 16)
            if not data:
                raise RuntimeError(f"{name} was expected of the broker, and it closed the connection")
            self._left += data


class Deliveries:
    """Counts the deliveries in an inbound stream of which channel 1 has nothing else."""

    def __init__(self) -> None:
        self._left = b""

    def feed(self, data: bytes) -> int:
        """Take in what arrived; return how many deliveries began in it."""
        data = self._left + data
        at, end, count = 0, len(data), 0
        unpack = _FRAME.unpack_from
        while end - at >= 7:
            kind, _, size = unpack(data, at)
            if at + size + 8 > end:
                break
            if kind == 1:
                if not data.startswith(_DELIVER, at + 7):
                    raise RuntimeError(f"the broker said {unmarshal(data[at : at + size + 8])[2]}")
                count += 1
            at += size + 8
        self._left = data[at:]
        return count


def acks(tags: Sequence[int]) -> bytes:
    """Return the acknowledgements of these deliveries, each by itself, as applications do it."""
    return b"".join(_ACK.pack(1, 1, 13, _BASIC_ACK, tag, 0, 0xCE) for tag in tags)
