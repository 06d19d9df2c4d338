"""`hone retrain`: ask the operator to repeat the job of a model on its new rows."""

from __future__ import annotations

from typing import Annotated

import typer

from hone_cli.errors import CommandError
from hone_cli.reach.completing import names_of
from hone_cli.reach.options import ContextOption, NamespaceOption, OutputOption, tell


def retrain(
    model: Annotated[str, typer.Argument(help="A Model with spec.retrain.", autocompletion=names_of("Model"))],
    output: OutputOption = "text",
    namespace: NamespaceOption = None,
    context: ContextOption = None,
) -> None:
    """Train a model again as soon as a row has changed, however few.

    It writes the annotation hone.dev/retrain-requested-at of the Model, with your own rights. The minimum interval, the
    quiet period and the budget of spec.retrain still hold. On unchanged rows no job starts, unless the job on them did
    not succeed and was deleted: then it is created again.
    """
    from hone_cli.reach.kube import Kube

    kube = Kube.load(context, namespace)
    body = kube.model(model)
    if body is None:
        raise CommandError(f"namespace {kube.namespace} has no Model {model}: hone models lists them")
    if not body["spec"].get("retrain"):
        raise CommandError(f"Model {model} has no spec.retrain, which names the job to repeat")
    kube.request_retraining(model)
    words = f"Requested. What it waits for: kubectl -n {kube.namespace} describe models.hone.dev {model}"
    tell(output, words, {"model": model, "requested": True})
