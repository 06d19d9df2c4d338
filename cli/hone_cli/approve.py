"""`hone approve` and `hone reject`: a person's decision about a version of a model."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hone_api.base.licences import forbids_commercial_use
from hone_api.verdicts.gates import measured_numbers, newest
from hone_api.words.states import ApprovalState
from hone_cli.approval import GateOpinion, consequences, gates_of, is_rejected_by_gate, number_line
from hone_cli.errors import CommandError, printable
from hone_cli.reach.completing import version_names
from hone_cli.reach.options import ContextOption, NamespaceOption, OutputOption, tell
from hone_cli.versions import MODEL_HELP, chosen

if TYPE_CHECKING:
    from hone_cli.reach.kube import Kube

_WORDS: Mapping[ApprovalState, str] = {
    ApprovalState.APPROVED: "approved",
    ApprovalState.REJECTED: "rejected",
    ApprovalState.CANDIDATE: "a candidate, as if nobody had decided",
}
_Reference = Annotated[
    str,
    typer.Argument(help=MODEL_HELP, autocompletion=version_names),
]
_Comment = Annotated[str | None, typer.Option(help="Why; it stays in spec.approval.comment.")]
_DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Change nothing: show the gates and what would follow, and ask if you may.")
]


def approve(
    model: _Reference,
    comment: _Comment = None,
    despite_gates: Annotated[
        bool, typer.Option("--despite-gates", help="Approve although gates have not passed; needs --comment.")
    ] = False,
    withdraw: Annotated[
        bool, typer.Option("--withdraw", help="Withdraw a decision, as if nobody had decided.")
    ] = False,
    dry_run: _DryRun = False,
    output: OutputOption = "text",
    namespace: NamespaceOption = None,
    context: ContextOption = None,
) -> None:
    """Approve a version of a model, after its gates.

    It shows what the gates say and which aliases move, then writes spec.approval. The API server checks that the name
    in it is yours, that you have the verb approve on modelversions.hone.dev (role admin), and, if the platform
    separates duties, that you did not submit the job. If gates failed or are inconclusive, the command refuses: train
    or evaluate on more rows, or give a reason with --despite-gates --comment. An alias of spec.promotion moves only to
    a version that passed the gates there, whoever approves it.

    \b
    hone approve support-bot:3 --dry-run     what the gates say, and what would follow
    hone approve support-bot:3               version 3; without a number, the newest that is Ready
    hone approve support-bot:3 --withdraw    nobody has approved it any more
    hone reject support-bot:3                nothing may use it: see hone reject --help
    """
    if withdraw and despite_gates:
        raise CommandError("--despite-gates is for an approval: leave it out with --withdraw")
    if despite_gates and not (comment or "").strip():
        raise CommandError("--despite-gates needs a reason for those who read it later: --comment 'why'")
    state: ApprovalState = ApprovalState.CANDIDATE if withdraw else ApprovalState.APPROVED
    _decide(_kube(context, namespace), model, state, comment, output, dry_run=dry_run, despite_gates=despite_gates)


def reject(
    model: _Reference,
    comment: _Comment = None,
    dry_run: _DryRun = False,
    output: OutputOption = "text",
    namespace: NamespaceOption = None,
    context: ContextOption = None,
) -> None:
    """Reject a version of a model.

    Aliases no longer point to it, servers unload it, and no job starts from it. It needs the same rights as hone
    approve. To allow it again: hone approve, or hone approve --withdraw.

    \b
    hone reject support-bot:4 --comment 'promises refunds'
    """
    _decide(_kube(context, namespace), model, ApprovalState.REJECTED, comment, output, dry_run=dry_run)


def _decide(
    kube: Kube,
    reference: str,
    state: ApprovalState,
    comment: str | None,
    output: str,
    *,
    dry_run: bool,
    **options: bool,
) -> None:
    said: list[str] = []
    say = said.append if output == "json" else typer.echo
    decide(kube, reference, state, comment, dry_run=dry_run, say=say, **options)
    if output == "json":
        tell(output, "", {"version": reference, "state": state, "dryRun": dry_run, "said": said})


def _kube(context: str | None, namespace: str | None) -> Kube:
    from hone_cli.reach.kube import Kube

    return Kube.load(context, namespace)


def decide(
    kube: Kube,
    reference: str,
    state: ApprovalState,
    comment: str | None,
    *,
    dry_run: bool,
    despite_gates: bool = False,
    say: Callable[[str], None] = typer.echo,
) -> None:
    """Show what is known about a version, write a decision about it, and show what follows; a line each to `say`.

    Raises:
        CommandError: the gates or the API server refuse.
    """
    version = chosen(kube, reference)
    name, model = version["metadata"]["name"], kube.model(version["spec"]["modelName"])
    approval, gates = version["spec"].get("approval") or {}, gates_of(version, model)
    for line in summary(version, gates):
        say(line)
    if approval.get("state", ApprovalState.CANDIDATE) == state:
        say(printable(f"It is {_WORDS[state]}{_by(approval)} already: nothing changed."))
        return
    if state == ApprovalState.CANDIDATE and is_rejected_by_gate(version):
        raise CommandError(
            f"a gate rejected ModelVersion {name}, so there is no decision of a person to withdraw. To approve it "
            "anyway, add --despite-gates --comment 'why'"
        )
    if state == ApprovalState.APPROVED and not (gates.passed or despite_gates):
        raise CommandError(
            f"ModelVersion {name} is not approved: its gates have not passed. Train or evaluate on more rows, or "
            "approve it all the same: --despite-gates --comment 'why'"
        )
    if not (user := kube.user()):
        raise CommandError(
            "the API server does not report who you are (kubectl auth whoami), and an approval needs a user name"
        )
    kube.decide(version, {"state": state, "by": user, "comment": comment}, dry_run=dry_run)
    say(printable(f"{name} {'would be' if dry_run else 'is'} {_WORDS[state]}. By: {user}."))
    for line in consequences(version, model, state, _pointed(kube, model)):
        say(printable(line))
    if not dry_run:
        say(f"To watch it: hone models {version['spec']['modelName']} -n {kube.namespace}")


def _pointed(kube: Kube, model: Mapping[str, Any] | None) -> dict[str, Mapping[str, Any]]:
    """The ModelVersions to which aliases point, by name."""
    names = {entry["modelVersion"] for entry in ((model or {}).get("status") or {}).get("aliases") or ()}
    return {name: version for name in sorted(names) if (version := kube.model_version(name))}


def summary(version: Mapping[str, Any], gates: GateOpinion) -> Iterator[str]:
    """What to know before a decision: the state, the numbers of the evaluation, licences and gates, a line each."""
    spec = version["spec"]
    approval = spec.get("approval") or {}
    why = f": {approval['comment']}" if approval.get("comment") and not is_rejected_by_gate(version) else ""
    state = f"{approval.get('state', ApprovalState.CANDIDATE)}{_by(approval)}{why}"
    yield printable(f"ModelVersion {version['metadata']['name']}: {state}")
    for each in newest(measured_numbers(version)):
        yield "  " + printable(number_line(each))
    if named := _licences(spec.get("lineage") or {}):
        yield printable(f"Licences: {', '.join(named)}")
    words = f": {gates.message}" if gates.message else ""
    yield printable(f"Gates: {gates.result or 'not known'}{words}")


def _licences(lineage: Mapping[str, Any]) -> list[str]:
    """What the version was made from, each with its licence."""
    base = lineage.get("baseModel") or {}
    sources = [("base", base), ("import", lineage.get("imported") or {})]
    sources += [(f"Dataset {each.get('name')}", each) for each in lineage.get("datasets") or ()]
    named = [(what, str(each["license"])) for what, each in sources if each.get("license")]
    return [f"{what} {name}{', not for commercial use' * forbids_commercial_use(name)}" for what, name in named]


def _by(approval: Mapping[str, Any]) -> str:
    return f" by {approval['by']}" if approval.get("by") else ""
