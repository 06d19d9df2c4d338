"""`hone download`: the files of a model, from the cluster's volume to a folder here."""

from __future__ import annotations

import contextlib
import secrets
import shlex
import tempfile
import webbrowser
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hone_api.blocks.delivery import ArtifactForm
from hone_api.contract.manifest import ADDED
from hone_api.kinds.modelversion import Artifact
from hone_api.words.states import ApprovalState
from hone_cli import local
from hone_cli.errors import AGAIN, FULL, CommandError, printable
from hone_cli.reach import files, pod
from hone_cli.reach.bar import bar
from hone_cli.reach.completing import version_names
from hone_cli.reach.copying import Copied, MissingFileError, check_folder, copy, copy_one
from hone_cli.reach.guard import digest
from hone_cli.reach.options import ContextOption, NamespaceOption, OutputOption, tell
from hone_cli.reach.remote_files import RemoteFiles
from hone_cli.reach.writing import write_whole
from hone_cli.versions import MODEL_HELP, chosen, ready, spec_of

if TYPE_CHECKING:
    from hone_cli.reach.kube import Kube

_REPORT = "report.html"
_IDLE_SECONDS = 2 * 3600.0
"""Seconds after which an unused pod ends by itself."""


def download(
    model: Annotated[
        str,
        typer.Argument(help=MODEL_HELP, autocompletion=version_names),
    ],
    folder: Annotated[Path, typer.Argument(help="A new folder, or one whose download was interrupted.")],
    form: Annotated[
        str | None, typer.Option(help="Adapter, Merged, Full or GGUF, where the version has several.")
    ] = None,
    output: OutputOption = "text",
    namespace: NamespaceOption = None,
    context: ContextOption = None,
) -> None:
    """Copy the files of a model out of the cluster.

    A temporary pod reads the files from the volume, with your own rights. Every file is verified against the digest in
    the ModelVersion. To resume an interrupted download, run the same command again.

    \b
    hone download support-bot out              the newest version that is Ready
    hone download support-bot:3 out            version 3
    hone download support-bot-v3 out           the same, by the name of its ModelVersion
    hone download support-bot out --form GGUF  one form, where there are several
    """
    from hone_cli.reach.kube import Kube

    kube = Kube.load(context, namespace)
    version = ready(chosen(kube, model))
    artifact = choose_artifact(version, form)
    copied = fetch(kube, version, artifact, folder)
    facts = {"modelVersion": version["metadata"]["name"], "format": artifact.format, "folder": str(folder)}
    facts |= {"files": copied.files, "sizeBytes": copied.size_bytes, "readBytes": copied.read_bytes}
    tell(output, summary(version, artifact, folder, copied), facts)


def fetch(kube: Kube, version: Mapping[str, Any], artifact: Artifact, folder: Path) -> Copied:
    """Copy the files of an artifact into a folder, by a temporary pod.

    Raises:
        CommandError: see `into`; or the pod cannot run.
    """
    check_folder(folder, artifact.digest)  # before a pod is started
    with _reached(kube, version, artifact) as source:
        return into(folder, source, artifact, is_signed(version))


def report(
    model: Annotated[str, typer.Argument(help=MODEL_HELP, autocompletion=version_names)],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="A new file; default: NAME-OF-THE-MODELVERSION.html.")
    ] = None,
    show: Annotated[bool, typer.Option("--open", help="Open the page in the browser.")] = False,
    namespace: NamespaceOption = None,
    context: ContextOption = None,
) -> None:
    """Copy the report page of a version, without its weights.

    A temporary pod reads the page from the volume, with your own rights. It is verified like a download.

    \b
    hone report support-bot:3 --open
    """
    from hone_cli.reach.kube import Kube

    kube = Kube.load(context, namespace)
    version = ready(chosen(kube, model))
    target = output or Path(f"{version['metadata']['name']}.html")
    if target.exists():
        raise CommandError(f"{target} exists: name another file with --output")
    write_report(kube, version, target)
    typer.echo(f"{target}: the report of {version['metadata']['name']}; every byte is as recorded")
    if show and not webbrowser.open(target.resolve().as_uri()):
        typer.echo("No browser was found: open the file in one.")


def write_report(kube: Kube, version: Mapping[str, Any], target: Path) -> None:
    """Write the report page of a version to a file, read by a temporary pod.

    Raises:
        CommandError: see `fetch_report`.
    """
    artifact = choose_artifact(version, None, any_form=True)
    with _reached(kube, version, artifact) as source:
        fetch_report(source, artifact, target)


def fetch_report(source: RemoteFiles, artifact: Artifact, target: Path) -> None:
    """Write the report page of an artifact to a file.

    Raises:
        CommandError: see `copying.copy`; an imported version has no page.
    """
    try:
        with tempfile.TemporaryDirectory() as folder:
            write_whole(target, copy_one(source, Path(folder), _REPORT, artifact.digest).read_bytes())
    except MissingFileError:
        raise CommandError("the version has no report page: an imported one has none") from None
    except OSError as error:
        raise CommandError(f"{error.filename or target}: {error.strerror or error}") from None


@contextlib.contextmanager
def _reached(kube: Kube, version: Mapping[str, Any], artifact: Artifact) -> Iterator[RemoteFiles]:
    """The files of an artifact, served by a temporary pod."""
    from hone_cli.reach import running

    token = secrets.token_urlsafe(32)
    with running.reached(kube, running.create(kube, pod.download_pod(version, artifact, digest(token)))) as tunnel:
        yield RemoteFiles(tunnel.url, token)


def is_signed(version: Mapping[str, Any]) -> bool:
    """Whether the folders of its artifacts have a signature."""
    signature = (version.get("status") or {}).get("signature") or {}
    return bool(signature.get("key"))


def into(folder: Path, source: RemoteFiles, artifact: Artifact, signed: bool = False) -> Copied:
    """Copy the artifact with a progress bar on stderr.

    Raises:
        CommandError: see `copying.copy`; or the folder cannot be written.
    """
    try:
        with bar("download") as progress:
            return copy(source, folder, artifact.digest, progress, ADDED if signed else ())
    except OSError as error:
        way = f": make room in it, and {AGAIN}" if error.errno in FULL else ""
        raise CommandError(f"{error.filename or folder}: {error.strerror or error}{way}") from None


def choose_artifact(version: Mapping[str, Any], form: str | None, any_form: bool = False) -> Artifact:
    """The form that is asked for, or the only one; with `any_form` the first of several.

    Raises:
        CommandError: there are several and none is named, or none of this name.
    """
    name = version["metadata"]["name"]
    artifacts = {a.format: a for a in spec_of(version).artifacts}
    forms = ", ".join(sorted(artifacts))
    if not form and len(artifacts) > 1 and not any_form:
        raise CommandError(f"ModelVersion {name} has several forms: choose one, --form {forms.replace(', ', ' or ')}")
    wanted: dict[str, ArtifactForm] = {a.lower(): a for a in artifacts}
    key = form.lower() if form else next(iter(wanted))
    if key not in wanted:
        raise CommandError(f"ModelVersion {name} has no form {form}; it has {forms}")
    return artifacts[wanted[key]]


def summary(version: Mapping[str, Any], artifact: Artifact, folder: Path, copied: Copied) -> str:
    """What was copied, and what to do with it."""
    spec = version["spec"]
    lines = [
        f"{folder}: {version['metadata']['name']}, {artifact.format}, {copied.files} files, "
        f"{copied.size_bytes:,} bytes ({copied.read_bytes:,} read now); every byte is as recorded"
    ]
    approval = (spec.get("approval") or {}).get("state", ApprovalState.CANDIDATE)
    if approval == ApprovalState.REJECTED:
        lines.append(printable(f"This version was rejected: {spec['approval'].get('comment') or 'without a comment'}"))
    lines.append(_next(spec, artifact, folder))
    return "\n".join(lines)


def _next(spec: Mapping[str, Any], artifact: Artifact, folder: Path) -> str:
    """What to do with the files."""
    place, base = shlex.quote(str(folder)), printable(spec["lineage"]["baseModel"]["uri"])
    command = "evaluate" if (is_reward := spec["lineage"]["method"] == "Reward") else "ask"
    rest = "--data ROWS" if is_reward else "'a question'"
    if artifact.format == "Adapter":
        return f"It needs its base, {base}: python -m hone_trainer {command} {place} {rest} --base FOLDER"
    if artifact.format == "GGUF":
        return f"Ask it: llama-cli -m {shlex.quote(str(folder / spec['modelName']))}.gguf -p 'a question'"
    return f"{'Score rows with' if is_reward else 'Ask'} it: python -m hone_trainer {command} {place} {rest}"


def serve_files(folder: Path) -> None:
    """Run in the pod of a download; the token's digest comes from its environment."""
    token_digest = pod.own_token_digest()
    local.serve_in_pod(lambda asked: files.application(folder, token_digest, asked), pod.PORT, _IDLE_SECONDS)
