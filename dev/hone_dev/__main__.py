"""`python -m hone_dev`: the embedded cluster, its images and tools."""

import sys

import typer

from hone_dev import cli
from hone_dev.tools.console import HoneDevError, show_error

app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False, help="The development cluster of Hone.")
app.add_typer(cli.cluster, name="cluster")
app.add_typer(cli.images, name="images")
app.command()(cli.tools)
app.command()(cli.hub)
app.command()(cli.demo)
app.command()(cli.ask)
app.command()(cli.faults)
app.command()(cli.life)
app.command()(cli.release)
app.command()(cli.audit)


def main() -> None:
    try:
        app()
    except HoneDevError as error:
        show_error(error)
        sys.exit(1)


if __name__ == "__main__":
    main()
