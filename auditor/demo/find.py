"""The choice of a broker: one that is given, else one of our own, else one in a container."""

from __future__ import annotations

import os
import secrets
import shlex
from collections.abc import Mapping
from typing import TYPE_CHECKING

from auditor.demo.broker import PrivateBroker, program
from auditor.demo.server import Broker, GivenBroker, Progress, silent
from auditor.errors import BrokerError

if TYPE_CHECKING:
    from testcontainers.core.container import DockerContainer

_IMAGE = "rabbitmq:4-management"
_START = 120.0  # seconds for a container to get ready, once its image is there


def find_broker(
    environ: Mapping[str, str] = os.environ, *, quick_counters: bool = True, progress: Progress = silent
) -> Broker:
    """Choose a broker without starting anything yet; BrokerError, saying what to do, when there is none.

    AUDITOR_TEST_BROKER_URL (with AUDITOR_TEST_MANAGEMENT_URL) names one that runs already, and
    AUDITOR_TEST_RABBITMQ_COMMAND a command to put before `rabbitmq-server` and its like. `quick_counters`
    is for a node of our own.
    """
    if url := environ.get("AUDITOR_TEST_BROKER_URL"):
        return GivenBroker(url, environ.get("AUDITOR_TEST_MANAGEMENT_URL", ""))
    if wrapper := environ.get("AUDITOR_TEST_RABBITMQ_COMMAND"):
        return PrivateBroker(shlex.split(wrapper), quick_counters=quick_counters, progress=progress)
    if program("rabbitmq-server"):
        return PrivateBroker(quick_counters=quick_counters, progress=progress)
    if problem := _no_containers():
        raise BrokerError(
            "there is no RabbitMQ to work with",
            why=f"no broker was given, rabbitmq-server is not installed, and {problem}",
            hint="Install it (on Debian, as root: apt-get install rabbitmq-server), or start Docker, or name a broker"
            " that runs: AUDITOR_TEST_BROKER_URL=amqp://user:password@host:5672 with its management API in"
            " AUDITOR_TEST_MANAGEMENT_URL=http://host:15672.",
        )
    return ContainerBroker(progress=progress)


class ContainerBroker(Broker):
    """RabbitMQ in a container that is removed at the end."""

    def __init__(self, *, progress: Progress = silent) -> None:
        super().__init__(origin=f"a container of {_IMAGE}")
        self.user = "administrator"
        self.password = secrets.token_urlsafe(24)
        self._progress = progress
        self._container: DockerContainer | None = None

    def start(self) -> None:
        """Start the container, getting its image first if need be, and wait until it can be used."""
        from testcontainers.core.container import DockerContainer

        self._progress(f"starting {self.origin}; the first time, its image has to be fetched")
        self._container = (
            DockerContainer(_IMAGE)
            .with_env("RABBITMQ_DEFAULT_USER", self.user)
            .with_env("RABBITMQ_DEFAULT_PASS", self.password)
            .with_exposed_ports(5672, 15672)
        )
        try:
            self._container.start()
        except Exception as error:  # of docker, of requests, of testcontainers: there is no common one
            raise BrokerError("could not start a container", on=_IMAGE, why=str(error)) from error
        self.host = self._container.get_container_host_ip()
        self.port = int(self._container.get_exposed_port(5672))
        self.management_url = f"http://{self.host}:{self._container.get_exposed_port(15672)}"
        self._wait(_START, lambda: None)
        self._progress(f"RabbitMQ {self.version} is ready at {self.amqp_url}")

    def close(self) -> None:
        """Remove the container."""
        if self._container is not None:
            self._container.stop()
            self._container = None


def _no_containers() -> str:
    """Why a container cannot be had; empty when it can."""
    try:
        from testcontainers.core.docker_client import DockerClient
    except ImportError:
        return "the extra `demo`, which starts it in a container, is not installed"
    try:
        DockerClient().client.ping()
    except Exception as error:  # docker's own, and those of the HTTP library below it
        return f"Docker does not answer ({error})"
    return ""
