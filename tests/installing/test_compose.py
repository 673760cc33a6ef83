"""config/compose.yaml: what it names is there, and Jaeger and the pages are reached through the proxy alone."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from auditor.settings import load

COMPOSE = Path(__file__).parents[2] / "config" / "compose.yaml"
TEXT = COMPOSE.read_text()
SERVICES = dict(re.findall(r"^  ([\w-]+):(?: &\w+)?\n((?:    .*\n|\n)+)", TEXT.partition("services:")[2], re.MULTILINE))


def test_its_files_are_there() -> None:
    files = re.findall(r"\{file: ([^}]*)\}", TEXT)
    assert len(files) >= 10
    missing = [file for file in files if not file.startswith("secrets/") and not (COMPOSE.parent / file).exists()]
    assert missing == []


def test_only_the_proxy_and_the_broker_are_open_to_the_outside() -> None:
    assert {"rabbitmq", "auditor", "auditor-web", "jaeger", "prometheus", "alertmanager", "grafana", "proxy"} <= set(
        SERVICES
    )
    opened = {
        name: port
        for name, text in SERVICES.items()
        for port in re.findall(r'^    ports: \["(.*)"\]', text, re.MULTILINE)
        if not port.startswith("127.0.0.1:")
    }
    assert opened == {"rabbitmq": "5672:5672", "proxy": "443:8443"}
    for name in ("auditor", "jaeger"):
        assert "networks: [inside]" in SERVICES[name], "a network without a way out"
    assert "<<: *auditor" in SERVICES["auditor-web"]


def test_the_proxy_knows_their_names() -> None:
    proxy = (COMPOSE.parent / "proxy" / "nginx.conf").read_text()
    upstreams = {name for name, _ in re.findall(r"proxy_pass http://([\w-]+):(\d+)", proxy)}
    assert upstreams <= set(SERVICES)


@pytest.mark.parametrize("service", ["auditor", "auditor-web"])
def test_its_settings_are_right(service: str, monkeypatch: pytest.MonkeyPatch) -> None:
    found = re.findall(r"^ +(AUDITOR_\w+): (['\"]?)(.*?)\2(?:  #.*)?$", SERVICES[service], re.MULTILINE)
    assert len(found) >= 3
    for name, _, value in found:
        monkeypatch.setenv(name, value)
    settings = load()
    if service == "auditor-web":
        assert f"ipv4_address: {settings.web.proxies[0]}" in SERVICES["proxy"]
