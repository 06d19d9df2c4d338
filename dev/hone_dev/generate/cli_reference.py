"""`python -m hone_dev.generate.cli_reference` writes docs/reference/cli.md from the commands and their options."""

from __future__ import annotations

import contextlib
import inspect
import io
import os
from collections.abc import Callable, Iterator, Sequence

from typer.core import TyperArgument, TyperCommand, TyperGroup, TyperOption
from typer.main import get_command

from hone_cli.__main__ import application
from hone_dev.tools import paths
from hone_trainer.commands import command_line, options

PAGE = paths.SOURCE / "docs" / "reference" / "cli.md"
INTRODUCTION = """\
# Command line

<!-- Generated from cli/hone_cli and trainer/hone_trainer by `make crds`. Do not edit. -->

Hone works with `kubectl apply`, `get` and `describe` alone. Two programs do what kubectl does not, or not as quickly:

| Program | For |
| --- | --- |
| `hone` | From rows to a tuned model in a cluster, with the rights of the kubeconfig, and what people do with it |
| `python -m hone_trainer` | Rows, plans and models in local folders, without a cluster |

`pip install '.[cli]'` in a clone of the repository installs `hone`, also as `kubectl hone`; `check` and `init` need
`pip install '.[cli,data]'`. The second one is in the trainer's image, and in
the `.venv` of a clone after `make setup`.

Each command prints its options with `--help`. `hone --version` prints the release.

| Exit code of `hone` | Meaning |
| --- | --- |
| 0 | Done |
| 1 | The cluster does not answer, refuses, or has no such object; a file cannot be read |
| 2 | An option or an argument is wrong |
| 3 | `plan`, `run`, `sweep`: an object is refused; `convert`, `migrate openai`: no job does this |
| 4 | `plan`, `run`, `sweep`: a job does not fit into its memory, or needs more than its budget |
| 5 | `watch`, `run`: the run has failed; `sweep`: all trials have; `migrate report`: parity is not shown |
| 6 | `convert`, `migrate openai`: a key is not known |
| 7 | `doctor`: a check has failed |
| 130 | Interrupted by Ctrl-C; what runs in the cluster goes on |

With `-o json`, standard output has one JSON document and nothing else; what is for people is on stderr. These commands
do not have it: `chat`, `ui`, `mcp` and `dataset review` are conversations, `logs` prints the log as it is, and the
answer of `init`, `report`, `bundle` and `migrate openai` is the file that their `-o` names.

One line on stderr names the cause of an error. `hone check` has the exit codes of the trainer, e.g. 65 for unusable
rows. Commands print no colours where `NO_COLOR` is set or their output is not a terminal.
"""
TRAINER = """
## python -m hone_trainer

Commands that people run. The pods of Hone run the others; `python -m hone_trainer --help` lists all.
"""
WIDTH = 100
"""Columns of the help of the trainer's commands."""
OF_A_LAPTOP = ("validate", "plan")
"""The trainer's commands for people whose parser is part of `command_line.parser()`."""
WITH_OWN_PARSER: dict[str, Callable[[Sequence[str]], object]] = {
    "ask": options.ask,
    "chat": options.chat,
    "evaluate": options.evaluate,
    "export": options.export,
}


def page() -> str:
    """The page as Markdown."""
    group = get_command(application())
    assert isinstance(group, TyperGroup)
    commands = "".join(_section(name, command) for name, command in _commands(group, "hone"))
    helps = {name: _trainer_help(name) for name in (*OF_A_LAPTOP, *WITH_OWN_PARSER)}
    blocks = "".join(f"\n### {name}\n\n```text\n{text}```\n" for name, text in helps.items())
    return INTRODUCTION + commands + TRAINER + blocks


def _commands(group: TyperGroup, path: str) -> Iterator[tuple[str, TyperCommand]]:
    """Each command below a group with its full name, as `--help` lists them."""
    for name, command in group.commands.items():
        if command.hidden:
            continue
        if isinstance(command, TyperGroup):
            yield from _commands(command, f"{path} {name}")
        elif isinstance(command, TyperCommand):
            yield f"{path} {name}", command


def _section(name: str, command: TyperCommand) -> str:
    arguments = [param for param in command.params if isinstance(param, TyperArgument)]
    usage = " ".join([name, *(_placeholder(argument) for argument in arguments), "[OPTIONS]"])
    paragraphs = inspect.cleandoc(command.help or "").split("\n\n")
    rows = [f"| `{_placeholder(argument)}` | {_cell(argument.help)} |\n" for argument in arguments]
    rows += [_row(param) for param in command.params if isinstance(param, TyperOption) and not param.hidden]
    table = "\n| Argument, option | Meaning |\n| --- | --- |\n" + "".join(rows)
    return f"\n## {name}\n\n`{usage}`\n\n" + "\n".join(_paragraph(text) for text in paragraphs) + table


def _placeholder(argument: TyperArgument) -> str:
    """`MODEL`, `MODELS...`; in brackets if it may be left out."""
    text = str(argument.name).upper() + ("..." if argument.nargs != 1 else "")
    return text if argument.required else f"[{text}]"


def _paragraph(text: str) -> str:
    """A paragraph; one that begins with click's mark against wrapping is shown as it is."""
    if text.startswith("\b"):
        return f"```text\n{text.removeprefix(chr(8)).strip()}\n```\n"
    return " ".join(text.split()) + "\n"


def _row(option: TyperOption) -> str:
    value = "" if option.is_flag else f" {str(option.name).upper()}"
    names = ", ".join(f"`{name}{value if name.startswith('--') else ''}`" for name in reversed(option.opts))
    shown = option.show_default and option.default not in (None, False)
    default = f" Default: `{option.default}`." if shown and "default" not in (option.help or "").lower() else ""
    return f"| {names} | {_cell(option.help)}{default} |\n"


def _cell(text: str | None) -> str:
    return (text or "").replace("|", "\\|")


def _trainer_help(name: str) -> str:
    """What `python -m hone_trainer NAME --help` prints."""
    before, os.environ["COLUMNS"] = os.environ.get("COLUMNS"), str(WIDTH)
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.suppress(SystemExit):
        if own := WITH_OWN_PARSER.get(name):
            own(["--help"])
        else:
            command_line.parser().parse_args([name, "--help"])
    if before is None:
        del os.environ["COLUMNS"]
    else:
        os.environ["COLUMNS"] = before
    return printed.getvalue()


if __name__ == "__main__":
    PAGE.write_text(page())
