"""What the client library makes of an endpoint's URL."""

from __future__ import annotations

import pytest
from aiormq.connection import Connection

from auditor.tap.connection import Endpoint

NAMES = ["/", "orders", "a/b", "50%", "a%b", "%25", "ü x", "a?b", "a#b", "a+b", "a&b=c", "a@b:c"]


def endpoint(vhost: str = "/", user: str = "auditor", password: str = "secret-0815") -> Endpoint:
    return Endpoint(host="broker", port=5672, vhost=vhost, user=user, password=password)


@pytest.mark.parametrize("vhost", NAMES)
async def test_any_vhost_reaches_the_broker_as_it_is_named(vhost: str) -> None:
    assert Connection(endpoint(vhost).url("name")).vhost == vhost


@pytest.mark.parametrize("text", NAMES)
def test_any_user_and_password_reach_the_broker(text: str) -> None:
    url = endpoint(user=text, password=text).url("name")
    assert (url.user, url.password) == (text, text)


def test_an_endpoint_does_not_show_its_password() -> None:
    assert "secret-0815" not in str(endpoint())
    assert "secret-0815" not in repr(endpoint())
