"""`hone chat`: talk to a model in the cluster and compare its answers with those of its base."""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import requests
import typer
from rich.console import Console
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from hone_api.kinds.modelversion import Artifact
from hone_cli import answering, local
from hone_cli.download import choose_artifact
from hone_cli.errors import CommandError
from hone_cli.reach import pod
from hone_cli.reach.completing import version_names
from hone_cli.reach.guard import digest
from hone_cli.reach.options import ContextOption, NamespaceOption
from hone_cli.reach.pod_server import PodServer, error_of
from hone_cli.versions import MODEL_HELP, chosen, ready

if TYPE_CHECKING:
    from hone_cli.reach.kube import Kube

_IDLE_SECONDS = 1800.0
"""Seconds after which an unused pod ends by itself: it holds the model in memory."""
_LOAD_SECONDS = 3600.0
"""Longest wait for the pod: tens of gigabytes of weights are read from a volume."""
_ANSWER_SECONDS = 1800.0
_NOTES = {"Repeats": "loops to its end", "Cut": "was cut"}
Message = Mapping[str, str]


class RemoteChat(PodServer):
    """The server of `answering` in a pod."""

    def answers(self, messages: Sequence[Message]) -> dict[str, dict[str, Any]]:
        """Answer of each model by its name, as {text, ending}.

        Raises:
            ModelEndedError: it can answer nothing any more.
            CommandError: the pod refuses, or does not answer.
        """
        status, reply = self.post(answering.PATH, {"messages": list(messages)}, _ANSWER_SECONDS)
        if status == answering.ENDED:
            raise answering.ModelEndedError(error_of(reply))
        if status != requests.codes.ok:
            raise CommandError(error_of(reply))
        return dict(reply)


def chat(
    model: Annotated[
        str,
        typer.Argument(help=MODEL_HELP, autocompletion=version_names),
    ],
    form: Annotated[str | None, typer.Option(help="Adapter, Merged or Full, where the version has several.")] = None,
    gpus: Annotated[
        int, typer.Option(min=0, max=8, help="GPUs of the pod; on a CPU, answers of a large model are slow.")
    ] = 0,
    memory: Annotated[str | None, typer.Option(help="Memory of the pod; default: from the size of the model.")] = None,
    namespace: NamespaceOption = None,
    context: ContextOption = None,
) -> None:
    """Converse with a trained model and its base, side by side.

    A temporary pod loads the model from the volume, with your own rights, and is deleted at the end. To serve a model
    to others, use `hone serve`.

    \b
    hone chat support-bot                 the newest version that is Ready
    hone chat support-bot:3 --gpus 1      version 3, on a GPU
    """
    from hone_cli.reach.kube import Kube

    kube = Kube.load(context, namespace)
    with opened(kube, ready(chosen(kube, model)), form, gpus, memory) as remote:
        converse(remote, Console())


@contextlib.contextmanager
def opened(
    kube: Kube, version: Mapping[str, Any], form: str | None = None, gpus: int = 0, memory: str | None = None
) -> Iterator[RemoteChat]:
    """A version and its base, loaded in a pod that is deleted at the end.

    Raises:
        CommandError: the pod cannot run, or the model's process has ended.
    """
    from hone_cli.reach import running

    artifact = choose_artifact(version, form)
    token = secrets.token_urlsafe(32)
    body = pod.chat_pod(version, artifact, digest(token), pod.Room(gpus, memory or _memory(version, artifact)))
    name = running.create(kube, body)
    with running.reached(kube, name, seconds=_LOAD_SECONDS) as tunnel:
        try:
            yield RemoteChat(tunnel.url, token)
        except answering.ModelEndedError as error:
            raise CommandError(f"{error}. The last lines of its pod: {running.log_tail(kube, name)}") from None


def converse(remote: RemoteChat, console: Console) -> None:
    """Ask until an empty line or the end of input; the conversation goes on with the tuned model's answers."""
    messages: list[Message] = []
    console.print("Empty line or Ctrl-D: end. /new: a new conversation.")
    while question := _question(console):
        if question == "/new":
            messages = []
            continue
        asked = [*messages, {"role": "user", "content": question}]
        try:
            replies = remote.answers(asked)
        except answering.ModelEndedError:
            raise  # as would every further question
        except CommandError as error:
            console.print(Text(f"{error}; /new begins again", style="red"))
            continue
        console.print(_side_by_side(replies))
        messages = [*asked, {"role": "assistant", "content": str(replies["tuned"]["text"])}]


def serve_chat(folder: str, base: Annotated[str | None, typer.Argument()] = None) -> None:
    """Run in the pod of a chat; the token's digest comes from its environment."""
    token_digest = pod.own_token_digest()
    with answering.model(folder, base) as asked:
        local.serve_in_pod(lambda used: answering.application(asked, token_digest, used), pod.PORT, _IDLE_SECONDS)


def _question(console: Console) -> str:
    try:
        return console.input("[bold]> [/bold]").strip()
    except EOFError:
        return ""


def _side_by_side(answers: Mapping[str, Mapping[str, Any]]) -> Table:
    table = Table.grid(expand=True)
    for _ in answers:
        table.add_column(ratio=1)
    table.add_row(*(_panel(name, answer) for name, answer in answers.items()))
    return table


def _panel(name: str, answer: Mapping[str, Any]) -> Panel:
    note = _NOTES.get(answer.get("ending") or "")
    return Panel(Text(str(answer["text"])), title=f"{name} ({note})" if note else name)  # not markup: a model wrote it


def _memory(version: Mapping[str, Any], artifact: Artifact) -> str:
    """Twice the weights in 4 bytes, and the libraries."""
    shape = (version["spec"]["lineage"]["baseModel"].get("shape") or {}).get("parameters")
    weights = int(shape) * 4 if shape else artifact.size_bytes * 2
    return f"{max(2, 2 + 2 * weights // 2**30)}Gi"
