"""`hone ui`: a page on loopback for people who would rather look, with their own rights; nothing new in the cluster."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import tempfile
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Generic, TypeVar

import typer
from aiohttp import web
from pydantic import BaseModel, ConfigDict

from hone_api.words.states import ApprovalState
from hone_cli import versions
from hone_cli.answering import ModelEndedError
from hone_cli.clients import aliases, html, pages, rows
from hone_cli.clients.client import Conversation, HoneClient
from hone_cli.errors import CommandError
from hone_cli.local import serve_page
from hone_cli.reach.copying import FileSource
from hone_cli.reach.guard import guarded
from hone_cli.reach.options import ContextOption, NamespaceOption, PricesOption
from hone_cli.reach.pod_server import UnreachableError
from hone_cli.review.server import HEADERS, MAX_BYTES
from hone_cli.runs import manifests, planning
from hone_cli.runs.jobs import set_suspend
from hone_cli.runs.plan import lines
from hone_cli.runs.run import apply

_PAGE = {"": ("console.html", "text/html"), "console.js": ("console.js", "text/javascript")}
_PAGE |= {"console.css": ("console.css", "text/css")}
_OF_REPORTS = {"Content-Security-Policy": "sandbox; default-src 'none'; style-src 'unsafe-inline'"}
_REPORTS = 8
"""Newest report pages that stay readable."""


def ui(
    port: Annotated[int, typer.Option(help="Port of the page; default: a free one.")] = 0,
    prices: PricesOption = None,
    namespace: NamespaceOption = None,
    context: ContextOption = None,
) -> None:
    """Serve a page with runs, rows and models on this machine.

    It shows runs with curves, queue and cost, compares them, shows Datasets and models, approves, chats, and writes and
    applies manifests, all with your own rights. Only this machine reaches it, with the token in the address that is
    printed; it loads nothing from other servers. Ctrl-C ends it.

    \b
    hone ui --namespace my-team
    """
    with Console(HoneClient(namespace, context, prices)) as console:
        serve_page(lambda digest: application(console, digest), port, "Look at")


class _ViewAsked(BaseModel):
    model_config = ConfigDict(extra="forbid")
    path: list[str]


class _ActionAsked(BaseModel):
    model_config = ConfigDict(extra="forbid")
    act: str
    fields: dict[str, str]


class Console:
    """What the page asks for. Pods that it started are deleted when it ends."""

    def __init__(self, client: HoneClient) -> None:
        self.client = client
        self._chats: _Opened[Conversation] = _Opened()
        self._rows: _Opened[FileSource] = _Opened()
        self._others = contextlib.ExitStack()
        self.reports: dict[str, bytes] = {}
        """Report pages by their secret path, the oldest first."""

    def __enter__(self) -> Console:
        return self

    def __exit__(self, *_: object) -> None:
        self._chats.close()
        self._rows.close()
        self._others.close()

    def show(self, path: list[str]) -> dict[str, Any]:
        """A view of the page."""
        return {"html": pages.shown(self.client, path), "live": (path or ["runs"])[0] in pages.LIVE}

    def act(self, name: str, fields: Mapping[str, str]) -> dict[str, Any]:
        """What a form asks for.

        Raises:
            CommandError: it is refused.
        """
        action = {
            "suspend": self.suspend,
            "resume": self.resume,
            "decide": self.decide,
            "confirm": self.confirm,
            "write": self.write,
            "plan": self.plan,
            "apply": self.apply,
            "ask": self.ask,
            "end": self.end,
            "review": self.review,
            "rows": self.rows,
            "report": self.report,
            "alias": self.alias,
            "point": self.point,
        }.get(name)
        if action is None:
            raise CommandError(f"there is no action {name}")
        try:
            return {"html": action(fields)}
        except KeyError as error:
            raise CommandError(f"the form has no field {error}") from None

    def suspend(self, fields: Mapping[str, str]) -> str:
        """See `hone suspend`."""
        set_suspend(self.client.objects, fields["run"], suspended=True)
        return html.element("p", "It saves a checkpoint and stops.")

    def resume(self, fields: Mapping[str, str]) -> str:
        """See `hone resume`."""
        set_suspend(self.client.objects, fields["run"], suspended=False)
        return html.element("p", "It goes on.")

    def decide(self, fields: Mapping[str, str]) -> str:
        """What a decision would do, and the button that makes it."""
        said = self._decided(fields, dry_run=True)
        button = html.form(
            "confirm", "Yes", again=True, **{key: fields.get(key, "") for key in ("version", "state", "comment")}
        )
        return html.join([said, button])

    def confirm(self, fields: Mapping[str, str]) -> str:
        """See `hone approve` and `hone reject`."""
        return self._decided(fields, dry_run=False)

    def _decided(self, fields: Mapping[str, str], *, dry_run: bool) -> html.Markup:
        from hone_cli.approve import decide

        if fields["state"] not in list(ApprovalState):
            raise CommandError(f"{fields['state']} is not a decision")
        said: list[str] = []
        state, comment = ApprovalState(fields["state"]), fields.get("comment") or None
        decide(self.client.objects.kube, fields["version"], state, comment, dry_run=dry_run, say=said.append)
        return html.element("pre", "\n".join(said))

    def write(self, fields: Mapping[str, str]) -> str:
        """See `hone init`."""
        from hone_cli.rows import place
        from hone_cli.rows.check import looked_at
        from hone_cli.rows.init import ManifestRequest, manifest

        source, model = fields["source"].strip(), fields["model"].strip()
        if not source or source.startswith("-"):
            raise CommandError("name a file with rows, or an address")
        if not fields["gpus"].isdecimal():
            raise CommandError(f"GPUs: {fields['gpus']!r} is not a number")
        name = place.checked(place.suggested(source))
        uri = source if "://" in source else place.address(Path(source), name)
        base = model if "://" in model else f"hf://{model}"
        request = ManifestRequest(name, uri, base, int(fields["gpus"]), fields["gpu"].strip() or None)
        return pages.written(manifest(request, looked_at(source)))

    def plan(self, fields: Mapping[str, str]) -> str:
        """See `hone plan`."""
        objects = self.client.objects
        planned = planning.plan(self._bodies(fields), objects, self.client.prices, spot=False)
        return pages.planned(fields["manifest"], "\n".join(lines(planned)), applies=not planned.exit_code)

    def apply(self, fields: Mapping[str, str]) -> str:
        """See `hone run`."""
        bodies = self._bodies(fields)
        apply(self.client.objects, bodies)
        names = [body["metadata"]["name"] for body in bodies if body["kind"] == "FineTuneJob"]
        return html.element("p", "Applied. ", *(html.link(name, "run", name) for name in names))

    def _bodies(self, fields: Mapping[str, str]) -> list[dict[str, Any]]:
        found = manifests.parsed(fields["manifest"], "the manifest")
        places = ((f"object {number}", body) for number, body in enumerate(found, 1))
        return manifests.ordered(places, self.client.objects.kube.namespace)

    def ask(self, fields: Mapping[str, str]) -> str:
        """See `hone chat`."""
        name, question = fields["version"], fields["question"].strip()
        with self._chats.used(name, lambda: self.client.version(name).chat()) as conversation:
            return pages.answered(question, conversation.ask(question))

    def end(self, fields: Mapping[str, str]) -> str:
        """Delete the pod of a conversation; of one that starts, as soon as it has."""
        self._chats.end(fields["version"])
        return html.element("p", "It has ended.")

    def review(self, fields: Mapping[str, str]) -> str:
        """See `hone dataset review --web`."""
        from hone_cli.review import cluster

        kube = self.client.objects.kube
        session = self._others.enter_context(cluster.reviewing(kube, fields["dataset"], None, 0))
        self._others.callback(session.finish)
        return html.element("a", "Open the review", href=session.url, target="_blank", rel="noreferrer")

    def rows(self, fields: Mapping[str, str]) -> str:
        """Some rows of a Dataset, read by a pod that goes on for the next ones."""
        name, file, offset = fields["dataset"], fields["file"], fields["offset"]
        if file not in (*pages.SPLITS, *rows.REFUSED) or not offset.isdecimal():
            raise CommandError(f"a Dataset has no rows {file} from {offset}: go back to its page")
        with self._source(name) as source:
            return pages.row_list(name, file, rows.page(source, file, int(offset)))

    def report(self, fields: Mapping[str, str]) -> str:
        """See `hone report`; the page of a Dataset likewise. The address is secret, and holds as long as `hone ui`."""
        from hone_cli.download import write_report

        if "dataset" in fields:
            with self._source(fields["dataset"]) as source:
                text = rows.report(source)
        else:
            version = self.client.version(fields["version"]).body
            with tempfile.TemporaryDirectory() as folder:
                write_report(self.client.objects.kube, versions.ready(version), Path(folder, "report.html"))
                text = Path(folder, "report.html").read_bytes()
        place = secrets.token_urlsafe(32)
        self.reports[place] = text
        for old in list(self.reports)[:-_REPORTS]:
            del self.reports[old]
        return html.element("a", "Open the report", href=f"report/{place}", target="_blank", rel="noreferrer")

    def _source(self, name: str) -> contextlib.AbstractContextManager[FileSource]:
        """The files of a Dataset; those of new content by a new pod."""
        body = self.client.objects.get("Dataset", name)
        status = body.get("status") or {}
        key = f"{name} {status.get('uri')} {status.get('report')}"
        return self._rows.used(key, lambda: rows.opened(self.client.objects.kube, body))

    def alias(self, fields: Mapping[str, str]) -> str:
        """Where an alias would point, and the button that moves it."""
        said = self._pointed(fields, dry_run=True)
        button = html.form("point", "Yes", again=True, **{key: fields[key] for key in ("model", "alias", "version")})
        return html.join([said, button])

    def point(self, fields: Mapping[str, str]) -> str:
        """Move an alias."""
        return self._pointed(fields, dry_run=False)

    def _pointed(self, fields: Mapping[str, str], *, dry_run: bool) -> html.Markup:
        model, alias, version = fields["model"], fields["alias"].strip(), fields["version"]
        if not version.isdecimal():
            raise CommandError(f"{version} is not the number of a version")
        said = aliases.point(self.client.objects, model, alias, int(version), dry_run=dry_run)
        return html.element("p", said)


T = TypeVar("T")


class _Opened(Generic[T]):
    """What pods serve, by name: opened once, used again, closed at the end or once the pod does not answer."""

    def __init__(self) -> None:
        self._open: dict[str, tuple[T, contextlib.ExitStack]] = {}
        self._locks: dict[str, threading.Lock] = defaultdict(threading.Lock)

    @contextlib.contextmanager
    def used(self, name: str, opens: Callable[[], contextlib.AbstractContextManager[T]]) -> Iterator[T]:
        """What has this name.

        Raises:
            CommandError: it cannot be opened, or its pod does not answer and is deleted.
        """
        with self._locks[name]:
            if name not in self._open:
                stack = contextlib.ExitStack()
                self._open[name] = (stack.enter_context(opens()), stack)
            served, stack = self._open[name]
        try:
            yield served
        except (ModelEndedError, UnreachableError) as error:
            with self._locks[name]:
                if self._open.get(name, (None,))[0] is served:
                    del self._open[name]
            stack.close()
            raise CommandError(f"{error}. The next try starts a new pod") from None

    def end(self, name: str) -> None:
        """Close it; what is being opened, as soon as it is."""
        with self._locks[name]:
            _, stack = self._open.pop(name, (None, contextlib.ExitStack()))
        stack.close()

    def close(self) -> None:
        """Close all."""
        for name in list(self._open):
            self.end(name)


def application(console: Console, token_digest: str) -> web.Application:
    """The page at /, the calls below /api."""
    app = guarded(token_digest, HEADERS, client_max_size=MAX_BYTES)

    def answers(call: Callable[[Any], dict[str, Any]], kind: type[BaseModel]) -> Any:
        async def answer(request: web.Request) -> web.Response:
            asked = kind.model_validate_json(await request.read())
            return web.json_response(await asyncio.to_thread(call, asked))

        return answer

    async def report(request: web.Request) -> web.Response:
        text = console.reports.get(request.match_info["place"])
        if text is None:
            raise web.HTTPNotFound(reason="this report has expired: request it again")
        return web.Response(body=text, content_type="text/html", charset="utf-8", headers=_OF_REPORTS)

    for path in _PAGE:
        app.router.add_get(f"/{path}", _page)
    app.router.add_get("/report/{place}", report)
    app.router.add_post("/api/show", answers(lambda asked: console.show(asked.path), _ViewAsked))
    app.router.add_post("/api/act", answers(lambda asked: console.act(asked.act, asked.fields), _ActionAsked))
    return app


async def _page(request: web.Request) -> web.Response:
    name, kind = _PAGE[request.path.removeprefix("/")]
    text = files("hone_cli").joinpath("page", name).read_text(encoding="utf-8")
    return web.Response(text=text, content_type=kind, charset="utf-8")
