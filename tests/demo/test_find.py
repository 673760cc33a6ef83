"""Which broker is chosen."""

from __future__ import annotations

import pytest

from auditor.demo import broker, find
from auditor.demo.broker import PrivateBroker
from auditor.demo.find import ContainerBroker, find_broker
from auditor.demo.server import GivenBroker
from auditor.errors import BrokerError


@pytest.fixture
def nothing_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(find, "program", lambda name: None)
    monkeypatch.setattr(find, "_no_containers", lambda: "Docker does not answer")


def test_a_broker_that_is_given_comes_first() -> None:
    given = find_broker(
        {
            "AUDITOR_TEST_BROKER_URL": "amqps://me:p%40ss@[::1]",
            "AUDITOR_TEST_MANAGEMENT_URL": "http://[::1]:15672",
            "AUDITOR_TEST_RABBITMQ_COMMAND": "some wrapper",
        }
    )
    assert isinstance(given, GivenBroker)
    assert given.amqp_url == "amqps://[::1]:5671"
    assert given.url("orders/eu") == "amqps://me:p%40ss@[::1]:5671/orders%2Feu"
    assert given.url(user="crm", password="/") == "amqps://crm:%2F@[::1]:5671/%2F"
    assert given.management.url == "http://[::1]:15672"


def test_then_one_behind_a_wrapper() -> None:
    chosen = find_broker({"AUDITOR_TEST_RABBITMQ_COMMAND": "'/a b/run' here"})
    assert isinstance(chosen, PrivateBroker)
    assert chosen.origin == "a private node of '/a b/run' here rabbitmq-server"


def test_then_the_installed_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(find, "program", lambda name: f"/opt/{name}")
    monkeypatch.setattr(broker, "program", lambda name: f"/opt/{name}")
    assert find_broker({}).origin == "a private node of /opt/rabbitmq-server"


@pytest.mark.usefixtures("nothing_installed")
def test_then_a_container(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(find, "_no_containers", lambda: "")
    assert isinstance(find_broker({}), ContainerBroker)


@pytest.mark.usefixtures("nothing_installed")
def test_without_any_the_error_says_both_ways_out() -> None:
    with pytest.raises(BrokerError, match="Docker does not answer") as caught:
        find_broker({})
    assert "apt-get install rabbitmq-server" in str(caught.value)
    assert "AUDITOR_TEST_BROKER_URL=" in str(caught.value)


@pytest.mark.parametrize("url", ["localhost:5672", "http://localhost", "amqp://"])
def test_a_url_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(BrokerError, match="the URL of the broker is wrong"):
        find_broker({"AUDITOR_TEST_BROKER_URL": url})


def test_without_its_url_the_management_api_cannot_be_asked() -> None:
    given = find_broker({"AUDITOR_TEST_BROKER_URL": "amqp://localhost"})
    with pytest.raises(BrokerError, match="AUDITOR_TEST_MANAGEMENT_URL"):
        given.add_vhost("x")


def test_a_broker_that_does_not_answer_is_an_error() -> None:
    with (
        pytest.raises(BrokerError, match="could not log in to the broker") as caught,
        GivenBroker("amqp://u:secret@127.0.0.1:1"),
    ):
        pass
    assert "127.0.0.1:1" in str(caught.value)
    assert "secret" not in str(caught.value)
