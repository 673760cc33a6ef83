"""What is said of settings that are wrong: all of it at once, by key, and never a secret."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from auditor.errors import SettingsError
from auditor.settings import load, loading
from tests.settings.conftest import Load

Mistakes = Callable[..., list[str]]

DURATION = 'a duration above 0, such as "250ms", "60s", "5m", "2h", "30d" or a number of seconds'

EVERYTHING_WRONG = r"""
colour = "blue"

[broker]
url = "http://broker"
passwort = "hunter2"
vhosts = []

[broker.management]
url = "ftp://broker"

[tap]
prefetch = 10
batch_events = "many"
max_bytes = "1GB"
bind = "some"

[ledger]
keep_healthy = "2d"
keep_verdicts = "1d"

[[flows]]
name = "a->b"
deadline = "-5s"
preset = "spring"
order_id = ["body:order..id", "routing_key:(", "cookie:x", "property:color", "body:nothing(@)"]

[[flows]]
name = "a->b"
dead_line = 5

[[flows]]
deadline = 0
"""


def test_all_mistakes_are_reported_together(mistakes: Mistakes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUDITOR_X", "1")
    monkeypatch.setenv("AUDITOR_BROKER_PASSWORD", "hunter2")
    monkeypatch.setenv("AUDITOR_LEDGER__PTH", "x")
    monkeypatch.setenv("AUDITOR_LOG__LEVEL", "loud")
    said = mistakes(EVERYTHING_WRONG)
    start = {line.split(":")[0]: line for line in said}
    expected = {
        "AUDITOR_X (environment)": "AUDITOR_X (environment): there is no such setting",
        "AUDITOR_BROKER_PASSWORD (environment)": (
            "AUDITOR_BROKER_PASSWORD (environment): there is no such setting; did you mean AUDITOR_BROKER__PASSWORD?"
        ),
        "colour": "colour: there is no such setting",
        "broker.url": "broker.url: found 'http://broker', expected amqp://HOST:PORT or amqps://HOST:PORT",
        "broker.passwort": "broker.passwort: there is no such setting; did you mean password?",
        "broker.vhosts": "broker.vhosts: expected at least 1 of them",
        "broker.management.url": (
            "broker.management.url: found 'ftp://broker', expected http://HOST:PORT or https://HOST:PORT"
        ),
        "tap.batch_events": "tap.batch_events: found 'many', expected a whole number",
        "tap.max_bytes": (
            'tap.max_bytes: found \'1GB\', expected a size above 0, such as "512KiB", "64MiB", "1GiB" '
            "or a number of bytes"
        ),
        "tap.bind": "tap.bind: found 'some', expected 'auto' or 'all'",
        "ledger.keep_verdicts": (
            "ledger.keep_verdicts: found '1d', expected at least ledger.keep_healthy, which is 172800"
        ),
        "ledger.pth (AUDITOR_LEDGER__PTH in the environment)": (
            "ledger.pth (AUDITOR_LEDGER__PTH in the environment): there is no such setting; did you mean path?"
        ),
        "log.level (AUDITOR_LOG__LEVEL in the environment)": (
            "log.level (AUDITOR_LOG__LEVEL in the environment): found 'loud', "
            "expected 'debug', 'info', 'warning' or 'error'"
        ),
        "flows[0].deadline": f"flows[0].deadline: found '-5s', expected {DURATION}",
        "flows[0].preset": (
            "flows[0].preset: found 'spring', expected "
            "'generic', 'spring-amqp', 'masstransit', 'nservicebus', 'easynetq' or 'celery'"
        ),
        "flows[0].order_id[0]": (
            "flows[0].order_id[0]: found 'body:order..id', expected body: and a JMESPath; this one has an error: "
        ),
        "flows[0].order_id[1]": (
            "flows[0].order_id[1]: found 'routing_key:(', expected routing_key: and a regular expression; "
            "this one has an error: missing ), unterminated subpattern at position 0"
        ),
        "flows[0].order_id[2]": (
            "flows[0].order_id[2]: found 'cookie:x', "
            "expected header:NAME, property:NAME, body:JMESPATH or routing_key:REGEX"
        ),
        "flows[0].order_id[3]": (
            "flows[0].order_id[3]: found 'property:color', expected property: and one of content_type, "
        ),
        "flows[0].order_id[4]": (
            "flows[0].order_id[4]: found 'body:nothing(@)', "
            "expected body: and a JMESPath; there is no function nothing()"
        ),
        "flows[1].name": "flows[1].name: found 'a->b', expected a name that no other flow has",
        "flows[1].dead_line": "flows[1].dead_line: there is no such setting; did you mean deadline?",
        "flows[2].name": "flows[2].name: is missing",
        "flows[2].deadline": f"flows[2].deadline: found 0, expected {DURATION}",
    }
    assert start.keys() == expected.keys()
    for key, line in expected.items():
        assert start[key].startswith(line)
    assert "hunter2" not in "\n".join(said)


def test_a_syntax_error_is_told_with_line_and_column_beside_the_rest(
    mistakes: Mistakes, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("AUDITOR_LOG__LEVEL", "loud")
    first, second = mistakes('[broker]\nuser = "x\n')
    assert first == f"{tmp_path}/auditor.toml: not TOML: Illegal character '\\n' (at line 2, column 10)"
    assert second.startswith("log.level")


def test_a_named_file_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=f"{tmp_path}/none.toml: there is no such file"):
        load(tmp_path / "none.toml")


def test_a_file_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="cannot be read: Is a directory"):
        load(tmp_path)
    (tmp_path / "latin.toml").write_bytes(b'[broker]\nuser = "\xe9"')
    with pytest.raises(SettingsError, match="not UTF-8 at byte 17"):
        load(tmp_path / "latin.toml")


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("amqp://user:hunter2@broker", "without user and password; they go to broker.user and broker.password"),
        ("amqp://user@broker", "without user and password; they go to broker.user and broker.password"),
        ("amqp://broker/orders", "without a path; virtual hosts go to broker.vhosts"),
        ("amqp://broker:x", "amqp://HOST:PORT"),
        ("amqp://broker:99999", "amqp://HOST:PORT"),
        ("amqp://user:hunter2@broker:x", "amqp://HOST:PORT"),
        ("amqp:///", "amqp://HOST:PORT"),
        ("amqp://broker?heartbeat=5", "amqp://HOST:PORT"),
        ("broker", "amqp://HOST:PORT"),
        ("amqp://hunter2#x:y@broker", "amqp://HOST:PORT"),
        ("amqp://u:hunt/hunter2@broker", "amqp://HOST:PORT"),
    ],
)
def test_a_url_holds_scheme_host_and_port_alone(mistakes: Mistakes, url: str, expected: str) -> None:
    (said,) = mistakes(broker={"url": url})
    assert said.startswith("broker.url: found ")
    assert expected in said
    assert "hunter2" not in said


@pytest.mark.parametrize(
    "toml",
    [
        'broker = "amqp://user:hunter2@host"',
        '[broker]\npassword = ["hunter2"]',
        "[broker]\npassword = 42424242",
        "[broker.management]\npassword = 42424242",
        '[broker]\nmanagement = "hunter2"',
        '[broker.passwords]\nx = "hunter2"',
    ],
)
def test_secrets_are_never_shown(mistakes: Mistakes, toml: str) -> None:
    said = "\n".join(mistakes(toml))
    assert "hunter2" not in said
    assert "42424242" not in said


def test_broken_json_in_the_environment_is_told_by_its_key(mistakes: Mistakes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUDITOR_BROKER", '{"password": "hunter2"')
    monkeypatch.setenv("AUDITOR_FLOWS", "all")
    monkeypatch.setenv("AUDITOR_TAP__QUEUE", "amq.mine")
    broker, tap, flows = mistakes()
    assert broker == "broker (AUDITOR_BROKER in the environment): expected a table"
    assert tap.startswith("tap.queue (AUDITOR_TAP__QUEUE in the environment): found 'amq.mine', expected a name of")
    assert flows.startswith("flows (AUDITOR_FLOWS in the environment): expected a list")


@pytest.mark.parametrize(
    ("overrides", "key"),
    [
        ({"tap": {"prefetch": 10}}, "tap.prefetch"),
        ({"tap": {"canary_timeout": "1ms"}}, "tap.canary_timeout"),
        ({"tap": {"reconnect_max": "1ms"}}, "tap.reconnect_max"),
        ({"tap": {"batch_linger": "11s"}}, "tap.batch_linger"),
        ({"tap": {"max_bytes": "1KiB"}}, "tap.max_bytes"),
        ({"tap": {"enable_firehose": "perhaps"}}, "tap.enable_firehose"),
        ({"broker": {"vhosts": ["/", "/"]}}, "broker.vhosts"),
        ({"broker": {"nodes": ["amqp://127.0.0.1"]}}, "broker.nodes"),
        ({"broker": {"nodes": ["amqp://one", "amqp://one:5672"]}}, "broker.nodes"),
        ({"broker": {"nodes": ["http://one"]}}, "broker.nodes"),
        ({"broker": {"management": {"nodes": ["http://one"]}}}, "broker.management.nodes"),
        ({"broker": {"management": {"url": "http://one", "nodes": ["amqp://two"]}}}, "broker.management.nodes"),
        ({"broker": {"vhosts": [""]}}, "broker.vhosts[0]"),
        ({"broker": {"heartbeat": "100ms"}}, "broker.heartbeat"),
        ({"broker": {"cert_file": "/x.pem"}}, "broker.key_file"),
        ({"audit": {"reinspect": True}}, "audit.reinspect"),
        ({"audit": {"reinspect": float("inf")}}, "audit.reinspect"),
        ({"audit": {"reinspect": "5 years"}}, "audit.reinspect"),
        ({"audit": {"reinspect": "40000d"}}, "audit.reinspect"),
        ({"flows": [{"name": ""}]}, "flows[0].name"),
        ({"flows": [{"name": "x", "stages": {"a": ""}}]}, "flows[0].stages.a"),
        ({"flows": "all"}, "flows"),
        ({"flows": ["all"]}, "flows[0]"),
    ],
)
def test_values_out_of_their_bounds(mistakes: Mistakes, overrides: dict[str, Any], key: str) -> None:
    (said,) = mistakes(**overrides)
    assert said.startswith(f"{key}: ")
    assert "expected" in said


def test_the_letter_says_what_was_attempted_and_what_to_do(loaded: Load, tmp_path: Path) -> None:
    with pytest.raises(SettingsError) as caught:
        loaded('[log]\nlevel = "loud"')
    assert str(caught.value).splitlines() == [
        f"The settings cannot be used ({tmp_path}/auditor.toml):",
        "  log.level: found 'loud', expected 'debug', 'info', 'warning' or 'error'",
        "config/auditor.toml shows every option with its default and its unit.",
    ]


def test_a_broken_default_file_is_not_passed_over(mistakes: Mistakes) -> None:
    loading.DEFAULT_CONFIG.write_text("broken")
    with pytest.raises(SettingsError, match="not TOML"):
        load()
