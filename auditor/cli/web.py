"""The command `auditor web`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from auditor import log
from auditor.errors import SettingsError
from auditor.settings import load


@click.command()
@click.option("--ledger", type=click.Path(path_type=Path), help="Ledger file.  [default: that of the settings]")
@click.option("--config", type=click.Path(path_type=Path), help="Settings file.")
@click.option("--listen", metavar="HOST:PORT", help="Where, in place of web.listen; port 0 takes a free one.")
@click.option("--hash-password", is_flag=True, help="Ask for a password, print its hash for web.users, and end.")
def web(ledger: Path | None, config: Path | None, listen: str | None, hash_password: bool) -> None:
    """Serve pages for the people on call: what is lost, the story of an order, whether the audit is sound.

    Reads the ledger only, beside the daemon or without it. On stdout: who looked at what, one JSON object a line.

    \b
    auditor web --ledger /var/lib/auditor/ledger.db
    """
    try:
        from auditor.web import serving
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] not in ("asgiref", "datasette", "jinja2", "uvicorn"):
            raise
        why = f"the library {error.name} is not installed"
        raise SettingsError("The pages cannot be served", why=why, hint="Install auditor[web].") from error
    if hash_password:
        click.echo(serving.hashed(click.prompt("Password", hide_input=True, confirmation_prompt=True, err=True)))
        return
    overrides: dict[str, Any] = {}
    if ledger is not None:
        overrides["ledger"] = {"path": ledger}
    if listen is not None:
        overrides["web"] = {"listen": listen}
    log.setup("warning")
    serving.serve(load(config, overrides=overrides))
