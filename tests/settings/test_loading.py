"""Where settings come from, and which place wins."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from auditor.settings import Settings, load, loading
from tests.settings.conftest import Load


@pytest.fixture
def credentials(tmp_path: Path) -> Path:
    folder = tmp_path / "credentials"
    folder.mkdir()
    return folder


def test_the_defaults_need_no_file() -> None:
    assert load() == Settings()


def test_the_default_file_is_read_when_it_is_there() -> None:
    loading.DEFAULT_CONFIG.write_text('[broker]\nuser = "from the default file"')
    assert load().broker.user == "from the default file"


def test_arguments_before_environment_before_secrets_before_file(
    loaded: Load, monkeypatch: pytest.MonkeyPatch, credentials: Path
) -> None:
    toml = '[broker]\nuser = "file"\nconnect_timeout = "7s"'
    assert loaded(toml).broker.user == "file"
    (credentials / "broker__user").write_text("secret\n")
    assert loaded(toml).broker.user == "secret"
    monkeypatch.setenv("AUDITOR_BROKER__USER", "environment")
    assert loaded(toml).broker.user == "environment"
    settings = loaded(toml, broker={"user": "argument"})
    assert settings.broker.user == "argument"
    assert settings.broker.connect_timeout == 7  # what the others do not name still counts


def test_secrets_come_from_files_named_like_options(loaded: Load, credentials: Path) -> None:
    (credentials / "broker__password").write_text(" with spaces \n")
    (credentials / "broker__management__password").write_text("other")
    (credentials / "broker__paßwort").write_text("somebody else's")
    (credentials / "broker").write_text("somebody else's")
    settings = loaded("[broker.management]\nurl = 'http://localhost:15672'")
    assert settings.broker.password.get_secret_value() == " with spaces "
    assert settings.broker.management_password.get_secret_value() == "other"
    assert "with spaces" not in repr(settings) + str(settings.model_dump())


def test_credentials_of_systemd_before_those_of_a_container(loaded: Load, credentials: Path, tmp_path: Path) -> None:
    (tmp_path / "container").mkdir()
    (tmp_path / "container" / "broker__user").write_text("container")
    assert loaded().broker.user == "container"
    (credentials / "broker__user").write_text("systemd")
    assert loaded().broker.user == "systemd"


def test_a_secret_that_cannot_be_read_is_a_mistake(mistakes: Callable[..., list[str]], credentials: Path) -> None:
    (credentials / "broker__password").write_bytes(b"\xff\xfe")
    (said,) = mistakes()
    assert said == f"broker.password: the secret {credentials}/broker__password cannot be read: not UTF-8"


def test_lists_and_flows_come_from_the_environment_as_json(loaded: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUDITOR_BROKER__VHOSTS", '["/", "orders"]')
    monkeypatch.setenv("auditor_flows", '[{"name": "a->b", "deadline": "5m"}]')
    monkeypatch.setenv("AUDITOR_BROKER__MANAGEMENT__URL", "https://broker")
    monkeypatch.setenv("AUDITOR_TEST_BROKER_URL", "the test suite's")
    settings = loaded()
    assert settings.broker.vhosts == ["/", "orders"]
    assert settings.flows[0].deadline == 300
    assert settings.broker.management.url == "https://broker"


def test_the_management_user_is_the_brokers_unless_given(loaded: Load) -> None:
    broker = loaded('[broker]\nuser = "u"\npassword = "p"').broker
    assert (broker.management_user, broker.management_password.get_secret_value()) == ("u", "p")
    broker = loaded('[broker]\nuser = "u"\npassword = "p"\n[broker.management]\nuser = "m"\npassword = "q"').broker
    assert (broker.management_user, broker.management_password.get_secret_value()) == ("m", "q")


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("amqp://broker", ("broker", 5672, False)),
        ("amqps://broker/", ("broker", 5671, True)),
        ("amqp://[::1]:5673", ("::1", 5673, False)),
    ],
)
def test_the_url_gives_host_port_and_tls(loaded: Load, url: str, address: tuple[str, int, bool]) -> None:
    assert loaded(f'[broker]\nurl = "{url}"').broker.addresses == [address]


@pytest.mark.parametrize(
    ("written", "seconds"),
    [("250ms", 0.25), ("60s", 60), ("1.5 m", 90), ("2h", 7200), ("30d", 2592000), ("5", 5), (0.5, 0.5), (3, 3)],
)
def test_durations(loaded: Load, written: str | float, seconds: float) -> None:
    assert loaded(audit={"reinspect": written}).audit.reinspect == seconds


@pytest.mark.parametrize(
    ("written", "size"),
    [("2MiB", 2 * 1024**2), ("1 GiB", 1024**3), ("1.5TiB", 1536 * 1024**3), (1048576, 1048576), ("1048577B", 1048577)],
)
def test_sizes(loaded: Load, written: str | int, size: int) -> None:
    assert loaded(tap={"max_bytes": written}).tap.max_bytes == size


def test_settings_cannot_be_changed_afterwards(loaded: Load) -> None:
    with pytest.raises(ValueError, match="frozen"):
        loaded().broker.user = "other"
