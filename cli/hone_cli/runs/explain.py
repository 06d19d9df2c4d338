"""`hone explain`: what a word of a status means, and what to do."""

from __future__ import annotations

import difflib
from typing import Annotated, Any

import typer

from hone_cli.errors import CommandError
from hone_cli.reach.options import OutputOption, tell


def code_names(incomplete: str) -> list[str]:
    """Failure codes and reasons of a status, for the completion of the shell."""
    return sorted(name for name in meanings() if name.lower().startswith(incomplete.lower()))


def explain(
    code: Annotated[
        str,
        typer.Argument(
            help="A failure code or a reason, e.g. DoesNotFit; case does not matter.", autocompletion=code_names
        ),
    ],
    output: OutputOption = "text",
) -> None:
    """Explain a failure code, or a reason of a status.

    \b
    hone explain GpuOutOfMemory
    """
    tell(output, _text(explained(code)), explained(code))


def meanings() -> dict[str, str | None]:
    """All codes and reasons; None: the code of a failure says no more than its hint."""
    from hone_api.words.failures import FAILURES
    from hone_api.words.states import AttemptOutcome, ConditionType, JobPhase, Reason

    kinds = (Reason, ConditionType, JobPhase, AttemptOutcome)
    return dict.fromkeys(map(str, FAILURES)) | {str(word): word.when for kind in kinds for word in kind}


def explained(code: str) -> dict[str, Any]:
    """The entry of a code.

    Raises:
        CommandError: there is none.
    """
    from hone_api.words.failures import FAILURES

    words = meanings()
    names = {name.lower(): name for name in words}
    name = names.get(code.lower())
    if name is None:
        near = difflib.get_close_matches(code.lower(), names, n=3)
        way = f"did you mean {', '.join(names[each] for each in near)}?" if near else "see docs/reference/conditions.md"
        raise CommandError(f"no code or reason is called {code}: {way}")
    failure = FAILURES.get(name)
    if failure is None:
        return {"code": name, "meaning": words[name]}
    retry = {
        "Never": "no: the same input gives the same failure",
        "Attempt": "yes, within the restart budget of the job",
        "Disruption": "yes, without using the restart budget",
        "Heal": "yes, with growing pauses, until the cause is gone",
    }
    found: dict[str, Any] = {
        "code": name,
        "meaning": words[name],
        "do": failure.hint,
        "retried": retry[failure.retry],
    }
    found |= {"exitCode": int(failure.exit_code), "command": failure.command or None}
    return {key: text for key, text in found.items() if text is not None}


def _text(entry: dict[str, Any]) -> str:
    labels = {"meaning": "", "do": "What to do: ", "command": "Command: ", "retried": "Tried again: "}
    lines = [f"{label}{entry[key]}" for key, label in labels.items() if entry.get(key)]
    return "\n".join([entry["code"], *(f"  {line}" for line in lines)])
