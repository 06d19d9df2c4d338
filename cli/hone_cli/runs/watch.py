"""`hone watch`: a run until it ends, as a live screen on a terminal and as plain lines elsewhere."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

import typer
from rich.console import Console, Group
from rich.live import Live
from rich.padding import Padding
from rich.progress_bar import ProgressBar
from rich.text import Text

from hone_api.estimate.memory import gib
from hone_api.words.states import ConditionType, JobPhase
from hone_cli.errors import CliExit, CommandError, printable
from hone_cli.reach.kube import Kube, ServerRefusalError
from hone_cli.reach.objects import Objects
from hone_cli.reach.options import ContextOption, JobArgument, NamespaceOption, OutputOption, tell
from hone_cli.runs.logs import tail_of
from hone_cli.runs.view import curves, ending, gpu_hours, has_failed, is_over, spark, view

if TYPE_CHECKING:
    from rich.console import RenderableType

_T = TypeVar("_T")
SECONDS = 2.0
"""Between two looks."""
_PATIENCE = 30
"""Looks that may fail in a row: a minute, in which an API server restarts."""
_EVENTS, _LOG_LINES = 4, 4
INTERRUPTED = 130


def watch(
    job: JobArgument,
    output: OutputOption = "text",
    namespace: NamespaceOption = None,
    context: ContextOption = None,
) -> None:
    """Watch a run until it ends.

    On a terminal it is a screen with stage, progress, curves, memory, queue, events and log; elsewhere a line for each
    stage and each tenth of the steps. Ctrl-C ends the watching; the run goes on. With -o json, all of this is on
    standard error, and the end of the run on standard output.

    Exit codes: 0 the model is there, 5 the run failed, 1 other errors.
    """
    objects = Objects(Kube.load(context, namespace))
    code = follow(objects, job, to_stderr=output == "json")
    if output == "json":
        tell(output, "", end_of(objects, job, code))
    raise typer.Exit(code)


def end_of(objects: Objects, name: str, code: int) -> dict[str, Any]:
    """How the run ended, for programs."""
    status = (objects.find("FineTuneJob", name) or {}).get("status") or {}
    fields = {"state": "phase", "modelVersion": "modelVersionName", "failure": "failure"}
    return {"name": name, "exitCode": code, **{key: status.get(field) for key, field in fields.items()}}


def follow(objects: Objects, name: str, seconds: float = SECONDS, *, to_stderr: bool = False) -> int:
    """Show a run until it ends; gives the exit code."""
    console, options = Console(stderr=to_stderr), objects.kube.options

    def say(line: str) -> None:
        console.print(line, markup=False, highlight=False)

    try:
        with _screen(objects, console) if console.is_terminal else _lines(console) as show:
            for job in looks(objects, name, seconds):
                show(job)
        version = (job.get("status") or {}).get("modelVersionName")
        trouble = wait_for_version(objects, version, say, seconds) if version else None
    except KeyboardInterrupt:
        words = f"{name} goes on. hone watch {name}{options}; hone cancel {name}{options}"
        console.print(words, markup=False, highlight=False, soft_wrap=True)
        return INTERRUPTED
    for line in [f"ModelVersion {version} cannot be used: {trouble}"] if trouble else ending(job, options):
        console.print(printable(line), markup=False, highlight=False, soft_wrap=True)
    return CliExit.RUN_FAILED if trouble or has_failed(job) else CliExit.DONE


def looks(objects: Objects, name: str, seconds: float) -> Iterator[dict[str, Any]]:
    """The job as it is every few seconds, until it is over."""
    job = objects.get("FineTuneJob", name)
    uid = job["metadata"]["uid"]
    while True:
        yield job
        if is_over(job):
            return
        time.sleep(seconds)
        found = patiently(lambda: objects.find("FineTuneJob", name), seconds)
        if found is None or found["metadata"]["uid"] != uid:
            raise CommandError(f"FineTuneJob {name} was deleted")
        job = found


def patiently(look: Callable[[], _T], seconds: float) -> _T:
    """What a look gives, where an API server may restart meanwhile."""
    for _ in range(_PATIENCE - 1):
        try:
            return look()
        except CommandError as error:
            if isinstance(error, ServerRefusalError) and not error.passes:
                raise
            time.sleep(seconds)
    return look()


def wait_for_version(objects: Objects, name: str, say: Callable[[str], None], seconds: float) -> str | None:
    """Wait until every file of the model is compared with the record: before that, nobody can use it.

    Args:
        say: called once with a line for people, if there is something to wait for.

    Returns:
        why nobody ever can; None: it can be used, or somebody deleted it.
    """
    said = False
    while version := patiently(lambda: objects.find("ModelVersion", name), seconds):
        holding = {each["type"]: each for each in (version.get("status") or {}).get("conditions", ())}
        holding = {type_: each for type_, each in holding.items() if each["status"] == "True"}
        if ConditionType.READY in holding:
            return None
        if stalled := holding.get(ConditionType.STALLED):
            return f"{stalled.get('reason')}: {stalled.get('message', '')}"
        if not said:
            say(f"{name} is verified …")
            said = True
        time.sleep(seconds)
    return None


@contextlib.contextmanager
def _lines(console: Console) -> Iterator[Callable[[Mapping[str, Any]], None]]:
    last: tuple[str, int] | None = None

    def show(job: Mapping[str, Any]) -> None:
        nonlocal last
        now = view(job)
        mark = (now.what, 10 * now.step // now.total if now.total else 0)
        if mark != last and not is_over(job):
            last = mark
            line = f"{time.strftime('%H:%M:%S')} {printable(now.line())}"
            console.print(line, markup=False, highlight=False, soft_wrap=True)

    yield show


@contextlib.contextmanager
def _screen(objects: Objects, console: Console) -> Iterator[Callable[[Mapping[str, Any]], None]]:
    with Live(console=console, transient=True, auto_refresh=False) as live:

        def show(job: Mapping[str, Any]) -> None:
            if not is_over(job):
                told = [*_events(objects, job), *tail_of(objects, dict(job), _LOG_LINES)]
                live.update(screen(job, told, console.width), refresh=True)

        yield show


def screen(job: Mapping[str, Any], events: list[str], width: int) -> RenderableType:
    """What a person sees of a run that is not over."""
    status, now = job.get("status") or {}, view(job)
    steps = f" {now.step}/{now.total}" if now.total else ""
    parts: list[RenderableType] = [
        Text(f"{job['metadata']['name']}  {status.get('phase') or JobPhase.PENDING}", style="bold"),
        Text(printable(now.what) + steps),
    ]
    if now.total:
        bar = ProgressBar(total=now.total, completed=now.step, width=min(60, width))
        parts.append(Padding(bar, 0))  # a bar alone does not end its line
    if now.numbers:
        parts.append(Text(now.numbers))
    for name, points in curves(job).items():
        if name in ("loss", "eval_loss") and points:
            label = f"{name:9} {points[-1][1]:.4g} "
            parts.append(Text(label + spark(points, max(8, min(60, width - len(label))))))
    if memory := _memory(status):
        parts.append(Text(f"memory    {memory}"))
    if hours := gpu_hours(job):
        parts.append(Text(f"used      {hours:.2f} GPU-hours{_of_budget(job)}"))
    queue = status.get("queue") or {}
    if queue.get("position"):
        parts.append(Text(f"queue     place {queue['position']} {printable(queue.get('message') or '')}"))
    parts += [Text(printable(event), style="dim", overflow="ellipsis", no_wrap=True) for event in events]
    return Group(*parts)


def _memory(status: Mapping[str, Any]) -> str:
    """Estimated and measured, where they are known."""
    estimated = (status.get("memory") or {}).get("estimated")
    reserved = (status.get("progress") or {}).get("gpuMemoryBytes")
    words = [f"{gib(estimated)} a pod estimated"] if estimated else []
    return ", ".join([*words, f"{gib(reserved)} on the first GPU so far"] if reserved else words)


def _of_budget(job: Mapping[str, Any]) -> str:
    from pydantic import ValidationError

    from hone_api.blocks.placement import Budget

    try:
        return f" of {Budget.model_validate(job['spec']['budget']).hours:g}" if job["spec"].get("budget") else ""
    except ValidationError:  # of another release
        return ""


def _events(objects: Objects, job: Mapping[str, Any]) -> list[str]:
    """The newest Events of the job; none where a person may not read them."""
    try:
        found = objects.list("Event", fields=f"involvedObject.uid={job['metadata']['uid']}")
    except CommandError:
        return []
    found.sort(key=lambda each: each.get("lastTimestamp") or each.get("eventTime") or "")
    return [f"{each.get('reason')}: {each.get('message')}" for each in found[-_EVENTS:]]
