"""`hone bundle`: one archive with what others need in order to help with a run."""

from __future__ import annotations

import io
import json
import tarfile
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hone_cli.errors import CommandError, printable
from hone_cli.reach.options import ContextOption, JobArgument, NamespaceOption
from hone_cli.reach.writing import write_whole

if TYPE_CHECKING:
    from hone_cli.reach.objects import Objects

_LOG_LINES, _LOG_BYTES = 20_000, 5_000_000
"""Of a container's log: the last lines, and of these the last bytes."""
_VALUE = "***"


def bundle(
    job: JobArgument,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="The archive; default: JOB.tar.gz.")] = None,
    report: Annotated[
        bool, typer.Option("--report", help="Add the report page of the version; a temporary pod reads it.")
    ] = False,
    namespace: NamespaceOption = None,
    context: ContextOption = None,
) -> None:
    """Pack what others need to help with a run; no Secret.

    The archive has the job, its Datasets, its Model and ModelVersion, its Jobs and pods, their events and logs, and
    what `hone doctor` finds. No Secret is read. Values of environment variables and annotations of others are left out,
    and what looks like a credential is replaced by ***. A credential in a form that Hone does not know stays; messages
    and logs can quote rows, and the report page does: look at the archive before you hand it on.

    \b
    hone bundle support-1
    """
    from hone_cli.reach.kube import Kube
    from hone_cli.reach.objects import Objects

    target = output or Path(f"{job}.tar.gz")
    if target.exists():
        raise CommandError(f"{target} exists: name another file with --output")
    objects = Objects(Kube.load(context, namespace))
    body = objects.get("FineTuneJob", job)
    entries = [*_objects(objects, body), *_logs(objects, job), ("doctor.json", _doctor(objects))]
    if report:
        entries.append(("report.html", _report(objects, body)))
    try:
        _write(target, job, entries)
    except OSError as error:
        raise CommandError(f"{error.filename or target}: {error.strerror or error}") from None
    typer.echo(f"{target}: {len(entries)} files. No Secret was read; look at its messages and logs before you send it.")


def without_secrets(value: Any) -> Any:
    """An object without values of environment variables, annotations of other tools, and credentials. Pure."""
    from hone_api.base.credentials import hide_credentials

    if isinstance(value, str):
        return hide_credentials(value)
    if isinstance(value, list):
        return [without_secrets(each) for each in value]
    if not isinstance(value, dict):
        return value
    found = {}
    for key, inner in value.items():
        if key == "managedFields":
            continue
        if key == "annotations" and isinstance(inner, dict):  # those of other tools repeat whole objects
            inner = {name: text for name, text in inner.items() if name.partition("/")[0].endswith("hone.dev")}
        if isinstance(inner, str):
            # Some secrets show only by the name of their field.
            found[key] = (
                _VALUE
                if hide_credentials(f"{key}={inner}") != f"{key}={hide_credentials(inner)}"
                else hide_credentials(inner)
            )
            continue
        found[key] = _without_values(inner) if key in ("env", "extraEnv") else without_secrets(inner)
    return found


def _without_values(variables: Any) -> Any:
    """Of a list of name and value, or of a mapping."""
    if isinstance(variables, dict):
        return dict.fromkeys(variables, _VALUE)
    if not isinstance(variables, list):
        return _VALUE
    shown = [without_secrets(each) for each in variables]
    return [{**each, "value": _VALUE} if isinstance(each, dict) and "value" in each else each for each in shown]


def _objects(objects: Objects, job: dict[str, Any]) -> Iterator[tuple[str, bytes]]:
    """The job and what belongs to it, and their events; a kind that the person may not read is named."""
    name, spec, status = job["metadata"]["name"], job["spec"], job.get("status") or {}
    wanted = {("FineTuneJob", name), ("Model", spec["output"]["modelName"])}
    for field in ("datasets", "evaluationDatasets"):
        wanted |= {("Dataset", each["name"]) for each in spec.get(field) or ()}
    for version in (status.get("modelVersionName"), spec["model"].get("modelVersion")):
        wanted |= {("ModelVersion", version)} if version else set()
    bodies, missing = [], []
    for kind, each in sorted(wanted):
        try:
            bodies += [{**found, "kind": kind}] if (found := objects.find(kind, each)) else []
        except CommandError as error:
            missing.append(str(error))
    events = []
    for kind in ("Job", "Pod", "Event"):
        try:
            listed = objects.list(kind, "" if kind == "Event" else f"hone.dev/finetunejob={name}")
        except CommandError as error:
            missing.append(str(error))
            continue
        if kind == "Event":
            there = {body["metadata"]["uid"] for body in bodies}
            events = [each for each in listed if (each.get("involvedObject") or {}).get("uid") in there]
        else:
            bodies += [{**each, "kind": kind} for each in listed]
    for each in bodies:
        yield f"objects/{each['kind']}-{each['metadata']['name']}.json", _json(without_secrets(each))
    yield "events.json", _json(without_secrets(events))
    if missing:
        yield "not-read.txt", "\n".join(map(printable, missing)).encode()


def _logs(objects: Objects, job: str) -> Iterator[tuple[str, bytes]]:
    from hone_api.base.credentials import hide_credentials
    from hone_cli.reach.kube import asked

    core, namespace = objects.kube.core, objects.kube.namespace
    try:
        pods = objects.list("Pod", f"hone.dev/finetunejob={job}")
    except CommandError as error:
        yield "logs/not-read.txt", str(error).encode()
        return
    for pod in pods:
        name = pod["metadata"]["name"]
        for container in [*(pod["spec"].get("initContainers") or ()), *pod["spec"]["containers"]]:
            options = {"container": container["name"], "tail_lines": _LOG_LINES}
            try:
                text = newest(
                    hide_credentials(str(asked(partial(core.read_namespaced_pod_log, name, namespace, **options))))
                )
            except CommandError as error:
                text = f"not read: {error}"
            yield f"logs/{name}.{container['name']}.log", text.encode()


def newest(text: str) -> str:
    """The end of a log, where a failure is: limitBytes of the API server keeps the beginning."""
    return text.encode()[-_LOG_BYTES:].decode(errors="replace")


def _doctor(objects: Objects) -> bytes:
    from hone_cli.health.checks import run

    return _json(without_secrets([check._asdict() for check in run(objects.kube)]))


def _report(objects: Objects, job: dict[str, Any]) -> bytes:
    from hone_cli.download import write_report
    from hone_cli.versions import chosen, ready

    version = (job.get("status") or {}).get("modelVersionName")
    if not version:
        raise CommandError(f"{job['metadata']['name']} has no ModelVersion yet, so no report: leave out --report")
    with tempfile.TemporaryDirectory() as folder:
        page = Path(folder) / "report.html"
        write_report(objects.kube, ready(chosen(objects.kube, version)), page)
        return page.read_bytes()


def _json(value: Any) -> bytes:
    return json.dumps(value, indent=2, ensure_ascii=False).encode()


def _write(target: Path, folder: str, entries: list[tuple[str, bytes]]) -> None:
    """All of the archive or nothing of it."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        for name, content in entries:
            info = tarfile.TarInfo(f"{folder}/{name}")
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    write_whole(target, packed.getvalue())
