"""`hone`: the command line."""

import typer

app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False, help="Work on the objects of Hone.")


def main() -> None:
    app()


if __name__ == "__main__":
    main()
