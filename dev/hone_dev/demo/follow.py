"""Showing a FineTuneJob while it runs: a live bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from hone_api import GROUP, VERSION
from hone_api.words.states import ConditionType
from hone_cli.runs.view import RunView, view
from hone_dev.demo.runs import is_finished
from hone_dev.demo.targets import Target
from hone_dev.tools.console import HoneDevError, console, note

PATIENCE = 20 * 60.0  # seconds without any change of the status


def failure(job: Mapping[str, Any]) -> HoneDevError | None:
    """One sentence of why the run failed, and the hint; None if it did not fail."""
    status = job.get("status") or {}
    conditions = {c["type"]: c for c in status.get("conditions", ()) if c["status"] == "True"}
    if ConditionType.STALLED not in conditions and ConditionType.FAILED not in conditions:
        return None
    if failed := status.get("failure"):
        tail = f"\n{failed['logTail']}" if failed.get("logTail") else ""
        return HoneDevError(
            f"the run failed: {failed['code']}: {failed.get('message', '')}{tail}", failed.get("hint", "")
        )
    reason = conditions.get(ConditionType.FAILED) or conditions[ConditionType.STALLED]
    return HoneDevError(f"the run failed: {reason['reason']}: {reason.get('message', '')}")


def follow(target: Target, namespace: str, name: str) -> dict[str, Any]:
    """Show the run until it ends; return the finished FineTuneJob.

    Raises HoneDevError when it failed, was deleted, or nothing changed for a long time.
    """
    with _display() as show:
        for job in _versions(target, namespace, name):
            if is_finished(job):
                break
            show(view(job))
    if error := failure(job):
        error.hint += f"\n       kubectl -n {namespace} describe ftj {name}"
        raise error
    return job


def _versions(target: Target, namespace: str, name: str) -> Iterator[dict[str, Any]]:
    """Every version of the job from now on; a lost connection is taken up again."""
    from kubernetes import client, config, watch  # its import takes a second

    file = str(target.kubeconfig) if target.kubeconfig else None
    api = client.CustomObjectsApi(config.new_client_from_config(file, context=target.context))
    seen, changed = "", time.monotonic()
    job: dict[str, Any] = {}
    while time.monotonic() - changed < PATIENCE:
        try:
            events = watch.Watch().stream(
                api.list_namespaced_custom_object,
                *(GROUP, VERSION, namespace, "finetunejobs"),
                field_selector=f"metadata.name={name}",
                timeout_seconds=60,
            )
            for event in events:
                job = event["object"]
                if event["type"] == "DELETED":
                    raise HoneDevError(f"FineTuneJob {name} was deleted", "run the demo again")
                if job["metadata"]["resourceVersion"] != seen:
                    seen, changed = job["metadata"]["resourceVersion"], time.monotonic()
                    yield job
        except (client.ApiException, OSError) as error:  # urllib3's errors of the network are OSErrors
            note(f"the API server does not answer, trying again: {type(error).__name__}")
            time.sleep(2)
    raise HoneDevError(
        f"nothing has changed for {PATIENCE / 60:.0f} minutes: {view(job).line()}",
        f"kubectl -n {namespace} describe ftj {name}; the run is still there, and `make demo` follows it again",
    )


@contextmanager
def _display() -> Iterator[Callable[[RunView], None]]:
    if not console.is_terminal:
        last: tuple[str, int] | None = None

        def print_line(now: RunView) -> None:
            """A line for each stage, and for each tenth of the steps."""
            nonlocal last
            mark = (now.what, 10 * now.step // now.total if now.total else 0)
            if mark != last:
                last = mark
                note(f"  {now.line()}")

        yield print_line
        return
    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[numbers]}"))
    with Progress(*columns, TimeElapsedColumn(), console=console, transient=True) as progress:
        task = progress.add_task("starting", total=None, numbers="")

        def draw(now: RunView) -> None:
            steps = f" {now.step}/{now.total}" if now.total else ""
            progress.update(
                task, description=now.what + steps, completed=now.step, total=now.total, numbers=now.numbers
            )

        yield draw
