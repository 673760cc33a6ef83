"""The private node: alone in its folder and on loopback, keeping its data, leaving nothing behind."""

from __future__ import annotations

import shlex
import socket
import struct
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from auditor.demo.broker import PrivateBroker
from auditor.errors import BrokerError

DEFINITIONS = {"queues": [{"name": "kept", "durable": True, "auto_delete": False, "arguments": {}}]}


@pytest.fixture(scope="module")
def node(node_wrapper: list[str]) -> Iterator[PrivateBroker]:
    """A second node, beside the session's, that the tests of this module may end. It runs again after each."""
    with PrivateBroker(node_wrapper) as node:
        yield node


def test_it_listens_on_loopback_only(node: PrivateBroker) -> None:
    addresses = _listening(node.pid)
    assert {port for _, port in addresses} >= {node.port, int(node.management_url.rpartition(":")[2])}
    assert {host for host, _ in addresses} == {"127.0.0.1"}


def test_it_takes_commands(node: PrivateBroker) -> None:
    assert node.ctl("list_vhosts", "name").split() == ["name", "/"]


def test_a_command_that_fails_says_why(node: PrivateBroker) -> None:
    with pytest.raises(BrokerError, match="no-such-vhost"):
        node.ctl("delete_vhost", "no-such-vhost")


@pytest.mark.parametrize("end", [PrivateBroker.stop, PrivateBroker.kill])
def test_it_keeps_its_data_when_it_ends_and_starts_again(
    node: PrivateBroker, end: Callable[[PrivateBroker], None]
) -> None:
    node.management.post("definitions", "/", json=DEFINITIONS)
    url, pid = node.url(), node.pid
    end(node)
    with pytest.raises(BrokerError, match="could not log in"):
        node.log_in()
    node.start()
    assert node.url() == url
    assert node.pid != pid
    assert [queue["name"] for queue in node.management.get("queues", "/")] == ["kept"]


def test_it_leaves_nothing_behind(node_wrapper: list[str]) -> None:
    with PrivateBroker(node_wrapper) as node:
        folder, pid = node.folder, node.pid
        assert folder.exists()
    assert not folder.exists()
    assert not _listening(pid)
    with socket.socket() as probe:
        assert probe.connect_ex((node.host, node.port)) != 0


def test_a_node_that_cannot_start_tells_its_last_words_and_is_cleared_away(
    tmp_path: Path, node_wrapper: list[str]
) -> None:
    script = tmp_path / "wrapper"
    script.write_text(
        "#!/bin/sh\n"
        f'case $1 in epmd) exec {shlex.join(node_wrapper)} "$@" ;; esac\n'
        f'echo "$HOME" >{tmp_path}/home\n'
        "echo 'the disk has a headache'\n"
        "exit 7\n"
    )
    script.chmod(0o755)
    with pytest.raises(BrokerError) as caught, PrivateBroker([str(script)]):
        pass
    assert "it ended by itself with exit code 7" in str(caught.value)
    assert "the disk has a headache" in str(caught.value)
    assert not Path((tmp_path / "home").read_text().strip()).exists()


def _listening(pid: int) -> set[tuple[str, int]]:
    """The TCP addresses on which a process listens, from what the kernel shows of it."""
    folder = Path(f"/proc/{pid}/fd")
    if not folder.exists():
        return set()
    mine = set()
    for link in folder.iterdir():
        with suppress(FileNotFoundError):  # closed in the meantime
            mine.add(link.readlink().name)
    listen = "0A"  # TCP_LISTEN
    found = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == listen and f"socket:[{fields[9]}]" in mine:
                address, port = fields[1].split(":")
                host = address if table == "tcp6" else socket.inet_ntoa(struct.pack("=I", int(address, 16)))
                found.add((host, int(port, 16)))
    return found
