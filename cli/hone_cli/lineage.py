"""`hone models`: the versions of models, from their rows to the aliases that point to them."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.text import Text
from rich.tree import Tree

from hone_api.base.wording import counted
from hone_api.verdicts.gates import measured_numbers, newest
from hone_api.words.states import ApprovalState, ConditionType, DeliveryState
from hone_cli.approval import number_line
from hone_cli.errors import CommandError, printable
from hone_cli.reach.completing import names_of
from hone_cli.reach.options import ContextOption, NamespaceOption, OutputOption

_SHOWN = 10
"""Newest versions of a model that the tree has, unless --all."""
_WIDEST = 5000
"""Columns: a digest that is cut cannot be copied, so the terminal wraps long lines itself."""
_STYLES: Mapping[str, str] = {ApprovalState.APPROVED: "green", ApprovalState.REJECTED: "red"}


@dataclass(frozen=True)
class RowsUsed:
    """A Dataset as a version used it."""

    name: str
    split: str
    digest: str
    rows: int | None


@dataclass(frozen=True)
class VersionNode:
    """A version, what it was made from, and what became of it."""

    name: str
    version: int
    aliases: Sequence[str]
    approval: str
    approved_by: str | None
    ready: bool
    servable: bool
    delivered: Sequence[str]
    """Where copies of it are."""
    delivering: Sequence[str]
    """Where copies go that are being made, and how far they are."""
    base: str
    """The model it was made from: a ModelVersion, or an address and its commit."""
    datasets: Sequence[RowsUsed]
    job: str | None
    submitted_by: str | None
    imported: str | None
    """Where it came from, if no job made it."""
    method: str
    finished_at: str | None
    base_loss: str | None
    loss: str | None
    measured: Sequence[str]
    """Numbers that were measured again."""


@dataclass(frozen=True)
class ModelNode:
    """A model, newest version first."""

    name: str
    up_to_date: str | None
    """Reason of the condition UpToDate of a model that is retrained."""
    versions: Sequence[VersionNode]


def models(
    name: Annotated[
        str | None, typer.Argument(help="A model; default: all of the namespace.", autocompletion=names_of("Model"))
    ] = None,
    output: OutputOption = "text",
    as_json: Annotated[bool, typer.Option("--json", help="The same as -o json.")] = False,
    every: Annotated[bool, typer.Option("--all", help=f"Every version; default: the newest {_SHOWN}.")] = False,
    namespace: NamespaceOption = None,
    context: ContextOption = None,
) -> None:
    """Show models as trees: rows, job, version, alias. It reads with your own rights and changes nothing.

    \b
    hone models                      all models of the namespace
    hone models support-bot -o json  every version of one, for programs
    """
    from hone_cli.reach.kube import Kube

    kube = Kube.load(context, namespace)
    nodes = trees(kube.all_models(), kube.model_versions(name))
    if name is not None:
        nodes = [node for node in nodes if node.name == name]
    if not nodes and kube.has_namespace() is False:
        raise CommandError(f"namespace {kube.namespace} does not exist: kubectl get namespaces")
    if not nodes:
        raise CommandError(f"namespace {kube.namespace} has no model{f' {name}' if name else ''}")
    if as_json or output == "json":
        typer.echo(json.dumps([asdict(node) for node in nodes], indent=2))
        return
    console = Console(width=_WIDEST)
    for node in nodes:
        console.print(drawn(node, None if every else _SHOWN), soft_wrap=True)
    typer.echo("The report of a version: hone report MODEL:VERSION --open")


def trees(objects: Iterable[Mapping[str, Any]], versions: Iterable[Mapping[str, Any]]) -> list[ModelNode]:
    """One tree for each model that has a version or an object, by name."""
    by_model: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for version in versions:
        by_model[version["spec"]["modelName"]].append(version)
    named = {model["metadata"]["name"]: model for model in objects}
    return [_model(name, named.get(name, {}), by_model.get(name, ())) for name in sorted({*by_model, *named})]


def _model(name: str, model: Mapping[str, Any], versions: Iterable[Mapping[str, Any]]) -> ModelNode:
    status = model.get("status") or {}
    aliases: dict[str, list[str]] = defaultdict(list)
    for entry in status.get("aliases") or ():
        aliases[entry["modelVersion"]].append(entry["name"])
    nodes = [_version(version, aliases.get(version["metadata"]["name"], [])) for version in versions]
    return ModelNode(name, _reason(status), sorted(nodes, key=lambda node: -node.version))


def _version(body: Mapping[str, Any], aliases: Sequence[str]) -> VersionNode:
    spec, status = body["spec"], body.get("status") or {}
    lineage, approval = spec["lineage"], spec.get("approval") or {}
    job, imported = lineage.get("job") or {}, lineage.get("imported") or {}
    true = {c["type"] for c in status.get("conditions") or () if c["status"] == "True"}
    base = lineage["baseModel"]
    address = base["uri"] + (f" ({base['commit'][:12]})" if base.get("commit") else "")
    copies = [
        d.get("location") or d["uri"] for d in status.get("deliveries") or () if d["state"] == DeliveryState.DELIVERED
    ]
    underway = [
        f"{d['uri']}: {(d.get('progress') or {}).get('summary') or 'begun'}"
        for d in status.get("deliveries") or ()
        if d["state"] == DeliveryState.DELIVERING
    ]
    return VersionNode(
        name=body["metadata"]["name"],
        version=spec["version"],
        aliases=sorted(aliases),
        approval=approval.get("state", ApprovalState.CANDIDATE),
        approved_by=approval.get("by"),
        ready=ConditionType.READY in true,
        servable=ConditionType.SERVABLE in true,
        delivered=copies,
        delivering=underway,
        base=base.get("modelVersion") or address,
        datasets=[RowsUsed(d["name"], d["split"], d["digest"], d.get("rows")) for d in lineage["datasets"]],
        job=job.get("name"),
        submitted_by=(job or imported).get("submittedBy"),
        imported=imported.get("uri"),
        method=lineage["method"],
        finished_at=lineage.get("finishedAt"),
        base_loss=status.get("baseEvalLoss"),
        loss=status.get("evalLoss"),
        measured=[number_line(each) for each in newest(measured_numbers(body)) if each.at],
    )


def _reason(status: Mapping[str, Any]) -> str | None:
    conditions = {c["type"]: c["reason"] for c in status.get("conditions") or ()}
    return conditions.get(ConditionType.UP_TO_DATE)


def drawn(model: ModelNode, most: int | None = None) -> Tree:
    """The model as a tree, with its newest `most` versions."""
    tree = Tree(Text(model.name, style="bold").append(f"  {model.up_to_date}" if model.up_to_date else "", style="dim"))
    for version in model.versions[:most]:
        branch = tree.add(_headline(version))
        branch.add(Text(printable(f"{version.method} of {version.base}")))
        for rows in version.datasets:
            count = "" if rows.rows is None else f", {counted(rows.rows, 'row')}"
            branch.add(Text(printable(f"{rows.name}/{rows.split}{count} ({rows.digest.removeprefix('sha256:')[:12]})")))
        by = f", submitted by {version.submitted_by}" if version.submitted_by else ""
        maker = f"imported from {version.imported}" if version.imported else f"job {version.job}"
        branch.add(Text(printable(f"{maker}{by}")))
        for line in version.measured:
            branch.add(Text(printable(line)))
        for place in version.delivered:
            branch.add(Text(printable(f"copy at {place}")))
        for place in version.delivering:
            branch.add(Text(printable(f"copying to {place}")))
    if most is not None and len(model.versions) > most:
        tree.add(Text(f"{len(model.versions) - most} older: --all", style="dim"))
    return tree


def _headline(version: VersionNode) -> Text:
    line = Text(f"v{version.version}")
    if version.aliases:
        line.append(f"  {printable(', '.join(version.aliases))}", style="bold cyan")
    by = f" by {version.approved_by}" if version.approved_by else ""
    line.append(f"  {printable(version.approval + by)}", style=_STYLES.get(version.approval, ""))
    if not version.ready:
        line.append("  not Ready", style="red")
    if version.loss:
        change = f"loss {version.base_loss or '?'} → {version.loss}"
        line.append(f"  {printable(change)}")
    return line.append(f"  {version.finished_at}" if version.finished_at else "", style="dim")
