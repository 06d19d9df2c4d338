"""`hone serve`: manifests for servers that load a model from its volume."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple

import typer

from hone_api.estimate.advice import SERVED_RANKS
from hone_cli.errors import CommandError, printable
from hone_cli.reach.completing import version_names
from hone_cli.reach.options import ContextOption, NamespaceOption, tell
from hone_cli.reach.pod import image_of
from hone_cli.runs.manifests import as_yaml
from hone_cli.serving import following, httproute, kserve, ollama, vllm
from hone_cli.serving.cautions import cautions, shows_signing
from hone_cli.serving.following import Following
from hone_cli.serving.httproute import Sharing
from hone_cli.serving.models import ServedModel, served
from hone_cli.serving.vllm import Server
from hone_cli.versions import alias_of, is_approved, to_serve

if TYPE_CHECKING:
    from hone_cli.reach.kube import Kube

IMAGE = "vllm/vllm-openai:v0.31.0"
"""The release whose rules the condition Servable reports."""
Renderer = Callable[[Sequence[ServedModel], Server], list[dict[str, Any]]]
SERVERS: Mapping[str, Renderer] = {
    "vllm": vllm.render,
    "kserve": kserve.inference_service,
    "kserve-llm": kserve.llm_inference_service,
}
TARGETS = (*SERVERS, "httproute", "ollama")
_SECRET = re.compile(r"[a-z0-9]([-.a-z0-9]{0,251}[a-z0-9])?")
_NAMESPACE = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_NAME = re.compile(r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?")


class Wishes(NamedTuple):
    """What the options say about the served models; None: the default."""

    form: str | None
    max_lora_rank: int | None
    sharing: Sharing


def serve(
    models: Annotated[
        list[str],
        typer.Argument(
            help="Models: name (its newest approved version; if none is approved, the newest that is Ready), "
            "name:version, name@alias, ModelVersion. models://name@alias, as jobs name it, is the same.",
            autocompletion=version_names,
        ),
    ],
    to: Annotated[str, typer.Option(help=f"Server: {', '.join(TARGETS)}.")] = "vllm",
    name: Annotated[str | None, typer.Option(help="Name of the server's objects; default: the first model's.")] = None,
    form: Annotated[
        str | None, typer.Option(help="Adapter, Merged, Full or GGUF; default: what vLLM serves cheapest.")
    ] = None,
    image: Annotated[
        str | None, typer.Option(help=f"Image of vLLM; default: the platform's trainer.servingImage, else {IMAGE}.")
    ] = None,
    gpus: Annotated[int, typer.Option(min=0, max=64, help="GPUs of one replica.")] = 1,
    replicas: Annotated[int, typer.Option(min=0, max=1000, help="Pods of the server.")] = 1,
    api_key_secret: Annotated[
        str | None, typer.Option(help="Secret whose key API_KEY clients of vLLM must send.")
    ] = None,
    allow_from: Annotated[
        list[str] | None,
        typer.Option(
            help="For vllm, kserve and kserve-llm: a namespace whose pods may ask, e.g. a gateway's; can be given "
            "several times. Default: for vllm only the server's own; KServe's pods stay open."
        ),
    ] = None,
    follow: Annotated[
        bool, typer.Option("--follow", help="Serve what the aliases mean at any time, if approved; for vllm.")
    ] = False,
    max_lora_rank: Annotated[
        int | None, typer.Option(help="With --follow: rank of later versions; default: that of today's.")
    ] = None,
    weights: Annotated[str | None, typer.Option(help="For httproute: shares of the versions, e.g. 90,10.")] = None,
    mirror: Annotated[
        bool, typer.Option("--mirror", help="For httproute: the first version answers, the others get copies.")
    ] = False,
    gateway: Annotated[str | None, typer.Option(help="For httproute: the Gateway, as name or namespace/name.")] = None,
    output: Annotated[
        Literal["yaml", "json"], typer.Option("--output", "-o", help="Form of the manifests: yaml or json.")
    ] = "yaml",
    namespace: NamespaceOption = None,
    context: ContextOption = None,
) -> None:
    """Print the manifests of a server for models.

    They are for kubectl apply or Git; the command changes nothing in the cluster. The server mounts the volume that
    Hone wrote the models to, read-only; no file is copied. Several adapters on one base share one server. Clients
    ask for the name of the model, or, where several versions of one model are named, for the name of the
    ModelVersion. Of a model without a version, the newest approved one is served, as stderr says. A version that
    nobody has approved, or that has no signature although the platform signs, is served with a warning on stderr.

    \b
    hone serve support-bot faq-bot --name bots > bots.yaml      two adapters in one vLLM
    hone serve support-bot --to kserve-llm | kubectl apply -f -
    hone serve bot:3 bot:4 --name bots > bots.yaml              two versions, as bot-v3 and bot-v4
    hone serve bot:3 bot:4 --to httproute --gateway infra/public --weights 90,10
    hone serve support-bot --to ollama > Modelfile
    hone serve support-bot@production faq-bot@production --follow --name bots > bots.yaml
    """
    from hone_cli.reach.kube import Kube

    wishes = Wishes(form, max_lora_rank, Sharing(weights, mirror, gateway))
    _check_options(to, wishes, follow=follow, secret=api_key_secret)
    _check_sources(to, allow_from or [])
    kube = Kube.load(context, namespace)
    versions = _choose(kube, models)
    _warn(kube, versions)
    if to == "ollama":
        modelfile = ollama.modelfile(served(versions, form or "GGUF"))
        tell(output, modelfile.removesuffix("\n"), {"Modelfile": modelfile})
        return

    def server(default: str) -> Server:
        trainer = image_of(versions[0]) if to == "vllm" else None
        of_clients = (api_key_secret, tuple(allow_from or ()))
        runs = image or _image_of(versions[0])
        return Server(_server_name(name or default), kube.namespace, runs, trainer, gpus, replicas, *of_clients)

    render_all = _render_followed if follow else _render_chosen
    objects = render_all(to, models, versions, wishes, server)
    tell(output, text(objects).removesuffix("\n"), objects)
    if to == "vllm" and api_key_secret is None:
        typer.echo(f"Warning: {open_to(kube.namespace, allow_from or [])}", err=True)


def _check_options(to: str, wishes: Wishes, *, follow: bool, secret: str | None) -> None:
    """Refuse what would be left out without a word.

    Raises:
        CommandError: the Secret of the key has no name, or what is printed has no use for an option.
    """
    if secret is not None and not _SECRET.fullmatch(secret):
        words = "is not the name of a Secret: without a key, anybody may ask"
        raise CommandError(f"--api-key-secret {secret!r} {words}")
    if secret is not None and to in ("httproute", "ollama"):
        raise CommandError(f"--api-key-secret is for --to vllm: {to} prints no server")
    if to == "ollama" and (follow or wishes.max_lora_rank is not None):
        raise CommandError("--follow and --max-lora-rank are for --to vllm")
    if to == "ollama":
        wishes.sharing.check(to)


def _image_of(version: Mapping[str, Any]) -> str:
    """The image of vLLM that the platform has for servers, else this command's own."""
    return ((version.get("status") or {}).get("downloadPod") or {}).get("vllmImage") or IMAGE


def _check_sources(to: str, namespaces: Sequence[str]) -> None:
    if namespaces and to not in ("vllm", "kserve", "kserve-llm"):
        raise CommandError(f"--allow-from is for --to vllm, kserve and kserve-llm: {to} prints no NetworkPolicy")
    if wrong := next((each for each in namespaces if not _NAMESPACE.fullmatch(each)), None):
        raise CommandError(f"--allow-from {wrong!r} is not the name of a namespace")


def open_to(namespace: str, others: Sequence[str]) -> str:
    """Who may ask a server without a key."""
    listed = ", ".join(sorted({namespace, *others}))
    return f"every pod of {listed} may ask this server without a key: --api-key-secret NAME makes clients send one"


def _choose(kube: Kube, references: Sequence[str]) -> list[dict[str, Any]]:
    """The versions, and on stderr why these where a model alone was named."""
    choices = [to_serve(kube, reference) for reference in references]
    for choice in choices:
        if choice.why:
            typer.echo(printable(choice.why), err=True)
    return [choice.version for choice in choices]


def _warn(kube: Kube, versions: Sequence[dict[str, Any]]) -> None:
    """Print on stderr what is not approved or not signed."""
    signs = shows_signing(versions)
    with contextlib.suppress(CommandError):  # who may read these versions may perhaps not list others
        models = {v["spec"]["modelName"] for v in versions}
        signs = signs or any(shows_signing(kube.model_versions(model)) for model in sorted(models))
    for sentence in cautions(versions, signs):
        typer.echo(f"Warning: {printable(sentence)}", err=True)


def _render_followed(
    to: str,
    references: Sequence[str],
    versions: Sequence[dict[str, Any]],
    wishes: Wishes,
    server: Callable[[str], Server],
) -> list[dict[str, Any]]:
    """The objects for a vLLM that follows aliases; `versions` are those of today."""
    if to != "vllm" or wishes.sharing != Sharing():
        raise CommandError("--follow is for --to vllm, without --weights, --mirror and --gateway")
    approved(versions)
    aliases = Following([alias_of(reference) for reference in references], _rank(wishes.max_lora_rank))
    # Two aliases may mean one version today.
    of_today = served(list({v["metadata"]["name"]: v for v in versions}.values()), wishes.form)
    return following.render(of_today, server(aliases.names[0]), aliases)


def _render_chosen(
    to: str,
    references: Sequence[str],
    versions: Sequence[dict[str, Any]],
    wishes: Wishes,
    server: Callable[[str], Server],
) -> list[dict[str, Any]]:
    """The objects for a server of these versions."""
    models = served(versions, wishes.form)
    # One route for all steps from one version to the next, whichever these are.
    named = server(models[0].model if to == "httproute" else models[0].name)
    if wishes.max_lora_rank is not None:
        raise CommandError("--max-lora-rank is for --follow: otherwise it is that of the served versions")
    return render(to, models, named, wishes.sharing)


def render(to: str, models: Sequence[ServedModel], server: Server, sharing: Sharing) -> list[dict[str, Any]]:
    """The objects for the server `to`.

    Raises:
        CommandError: the name of the server is unknown, one such server cannot serve all these models, or `sharing` is
            not for it.
    """
    sharing.check(to)
    if to == "httproute":
        return httproute.render(models, server, sharing)
    if to not in SERVERS:
        raise CommandError(f"no server {to!r}: --to is one of {', '.join(TARGETS)}")
    return SERVERS[to](models, server)


def text(objects: Sequence[Mapping[str, Any]]) -> str:
    """The objects as YAML documents."""
    return as_yaml(objects)


def approved(versions: Sequence[dict[str, Any]]) -> Sequence[dict[str, Any]]:
    """The same versions.

    Raises:
        CommandError: one is not approved, so a server that follows its alias would not load it.
    """
    for version in versions:
        if not is_approved(version):
            name = version["metadata"]["name"]
            raise CommandError(
                f"ModelVersion {name} is not approved, and --follow serves approved versions alone: see the page "
                "Promote and roll back a model"
            )
    return versions


def _rank(rank: int | None) -> int | None:
    if rank is not None and rank not in SERVED_RANKS:
        raise CommandError(f"--max-lora-rank {rank}: vLLM accepts {', '.join(map(str, SERVED_RANKS))}")
    return rank


def _server_name(taken: str) -> str:
    if not _NAME.fullmatch(taken):
        raise CommandError(f"{taken!r} cannot name a Service: give --name, letters, digits and '-' from a letter on")
    return taken
