"""docs/integration.md as it is written: the Java program is compiled, and its messages appear in the ledger."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from auditor.settings import load
from tests.acceptance.conftest import auditor as auditor
from tests.acceptance.harness import Auditor
from tests.acceptance.scene import open_scene

DOC = (Path(__file__).parents[2] / "docs" / "integration.md").read_text()
TRACE = "0af7651916cd43dd8448eb211c80319c"
POM = """<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>example</groupId><artifactId>order-sender</artifactId><version>1</version>
  <dependencies>{}</dependencies>
</project>
"""


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", DOC, re.DOTALL | re.MULTILINE)


def run(*command: str, cwd: Path, **environ: str) -> None:
    assert shutil.which(command[0]), (
        f"{command[0]} is missing; on Debian, as root: apt-get install maven default-jdk-headless"
    )
    done = subprocess.run(
        command, cwd=cwd, capture_output=True, text=True, check=False, timeout=400, env={**os.environ, **environ}
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.timeout(600)
async def test_a_java_sender_by_the_example(auditor: Auditor, tmp_path: Path) -> None:
    (java,), (dependencies,) = blocks("java"), blocks("xml")
    (tmp_path / "OrderSender.java").write_text(java)
    (tmp_path / "pom.xml").write_text(POM.format(dependencies))
    fetch = ("mvn", "-q", "-B", "dependency:build-classpath", "-Dmdep.outputFile=classpath")
    await asyncio.to_thread(run, *fetch, cwd=tmp_path)
    classpath = f"{(tmp_path / 'classpath').read_text()}:{tmp_path}"
    await asyncio.to_thread(run, "javac", "-Werror", "-cp", classpath, "OrderSender.java", cwd=tmp_path)

    settings = tmp_path / "flows.toml"
    settings.write_text(blocks("toml")[0])
    (flow,) = load(settings).flows
    auditor.settings["flows"] = [flow.model_dump(mode="json", exclude_unset=True)]
    auditor.start()
    await auditor.reading()
    async with open_scene(auditor, "java") as scene:
        scene.prefix = ""
        inbox = await scene.queue("mes.orders")
        exchange = await scene.exchange("crm.orders", "topic")
        await inbox.bind(exchange, "order.#")
        await scene.consume(inbox)
        sender = ("java", "-cp", classpath, "OrderSender", "A-1047", "MANUFACTURING_APPROVED", "jane")
        where = auditor.broker.url(auditor.vhost)
        await asyncio.to_thread(run, *sender, f"00-{TRACE}-b7ad6b7169203331-01", cwd=tmp_path, AMQP_URI=where)
        (message_id,) = await scene.arrived(1)
    assert message_id, "Spring sent an id"
    row = await auditor.until(
        lambda reader: next((row for row in reader.message(message_id) if row["state"] == "delivered"), None),
        "it is recorded as delivered",
    )
    told = {name: row[name] for name in ("order_id", "stage", "user_id", "flow", "queue", "exchange")}
    assert told == {
        "order_id": "A-1047",
        "stage": "MANUFACTURING_APPROVED",
        "user_id": "jane",
        "flow": "crm->mes",
        "queue": "mes.orders",
        "exchange": "crm.orders",
    }
    assert auditor.ask(lambda reader: reader.message_trace(row)) == TRACE
    assert auditor.ask(lambda reader: reader.order_traces("A-1047")) == [TRACE]
