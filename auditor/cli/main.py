"""The `auditor` command. Errors leave here as one letter on stderr and an exit code; a traceback is a bug."""

from __future__ import annotations

import sys

import click

from auditor.cli import acknowledging, daemon, reading
from auditor.cli.version import version
from auditor.cli.web import web
from auditor.demo.command import demo
from auditor.errors import AuditorError


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(version(), prog_name="auditor", message="%(prog)s %(version)s")
def auditor() -> None:
    """Audit RabbitMQ: which messages were published and never delivered, and what is the evidence?

    `auditor run` is the daemon. It reads the broker's firehose and writes the ledger, one SQLite file. All other
    commands but `check`, `demo` and `ack` only read the ledger, whether the daemon runs or not.

    Exit codes: 0 fine; 1 the answer is bad news (lost --fail, check, demo); 2 wrong use or settings; 3 broker or ledger
    out of reach.
    """


for command in (
    daemon.run,
    daemon.check,
    reading.lost,
    reading.order,
    reading.message,
    reading.hops,
    reading.orders,
    reading.stages,
    acknowledging.ack,
    reading.status,
    reading.coverage,
    web,
    demo,
):
    auditor.add_command(command)


def main() -> None:
    """Run the command line and exit."""
    try:
        auditor(standalone_mode=False)
    except click.exceptions.Exit as exit_:
        sys.exit(exit_.exit_code)
    except click.ClickException as error:
        error.show()
        sys.exit(2)
    except (click.Abort, KeyboardInterrupt):
        sys.exit(130)
    except AuditorError as error:
        click.echo(f"auditor: {error}", err=True)
        sys.exit(error.exit_code)
    except BrokenPipeError:  # `auditor hops | head`
        sys.stderr.close()
        sys.exit(0)


if __name__ == "__main__":
    main()
