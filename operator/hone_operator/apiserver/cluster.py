"""The only module that talks to the API server: plain dictionaries in and out, one call for each function."""

import contextlib
import copy
import json
import logging
import re
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlencode

import aiohttp
from kubernetes.aio import config as kube_config
from kubernetes.aio.client.api_client import ApiClient
from kubernetes.aio.client.configuration import Configuration

from hone_api import API_VERSION, GROUP, VERSION
from hone_api.base.credentials import hide_credentials
from hone_operator.apiserver.errors import (
    ClusterError,
    ConflictError,
    NotFoundError,
    RefusedError,
    TooLargeError,
    UnreadableObjectError,
    error_of,
)
from hone_operator.apiserver.fencing import fenced, is_write
from hone_operator.apiserver.pages import MAX_PAGE_BYTES, PageTooLongError, pages
from hone_operator.desired.core.names import COMPONENT, DELIVER, FIELD_MANAGER, KUEUE_API
from hone_operator.objects.cache import strip
from hone_operator.objects.decoding import (
    ENVELOPE,
    MAX_BYTES,
    Skipped,
    UnreadableError,
    decode,
    decode_list_aside,
    identity,
)
from hone_operator.objects.pruning import UNKNOWN

log = logging.getLogger(__name__)
TIMEOUT = aiohttp.ClientTimeout(total=30, connect=10)
WATCH_SECONDS = 300
"""After which the API server ends a watch."""
WATCH_TIMEOUT = aiohttp.ClientTimeout(total=WATCH_SECONDS + 30, sock_connect=10, sock_read=70)
"""The API server sends a bookmark every minute, so a dead connection cannot pass for a quiet cluster."""
APPLY = "application/apply-patch+yaml"
MERGE_PATCH = "application/merge-patch+json"
JSON_PATCH = "application/json-patch+json"
JSON = "application/json"
METADATA_ONLY = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"
METADATA_LIST = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"
FORCE = {"fieldManager": FIELD_MANAGER, "force": "true"}
MAX_LOG_BYTES = 8192
CHUNK = 2**16
PATCH_REFUSED = "the server rejected our request due to an error in our request"
"""The API server's message if a test in a JSON patch fails."""

PATHS = {
    "FineTuneJob": (f"/apis/{GROUP}/{VERSION}", "finetunejobs"),
    "Dataset": (f"/apis/{GROUP}/{VERSION}", "datasets"),
    "ModelVersion": (f"/apis/{GROUP}/{VERSION}", "modelversions"),
    "Model": (f"/apis/{GROUP}/{VERSION}", "models"),
    "Job": ("/apis/batch/v1", "jobs"),
    "Pod": ("/api/v1", "pods"),
    "ConfigMap": ("/api/v1", "configmaps"),
    "Workload": (f"/apis/{KUEUE_API}", "workloads"),
    "Service": ("/api/v1", "services"),
    "NetworkPolicy": ("/apis/networking.k8s.io/v1", "networkpolicies"),
    "PersistentVolumeClaim": ("/api/v1", "persistentvolumeclaims"),
    "Event": ("/apis/events.k8s.io/v1", "events"),
    "CoreEvent": ("/api/v1", "events"),
    "Secret": ("/api/v1", "secrets"),
    "Namespace": ("/api/v1", "namespaces"),
    "Node": ("/api/v1", "nodes"),
    "RoleBinding": ("/apis/rbac.authorization.k8s.io/v1", "rolebindings"),
    "ClusterRole": ("/apis/rbac.authorization.k8s.io/v1", "clusterroles"),
    "Lease": ("/apis/coordination.k8s.io/v1", "leases"),
    "SelfSubjectAccessReview": ("/apis/authorization.k8s.io/v1", "selfsubjectaccessreviews"),
    "TokenReview": ("/apis/authentication.k8s.io/v1", "tokenreviews"),
}


def url_path(kind: str, namespace: str | None, name: str = "", sub: str = "") -> str:
    """URL path of a collection, an object or a subresource."""
    prefix, plural = PATHS[kind]
    parts = [prefix]
    if namespace:
        parts.append(f"namespaces/{quote(namespace, safe='')}")
    parts.append(plural)
    if name:
        parts.append(quote(name, safe=""))
    if sub:
        parts.append(sub)
    return "/".join(parts)


async def _read(response: Any, most: int) -> bytes:
    data = bytearray()
    async for part in response.response.content.iter_any():
        data += part
        if len(data) > most:
            response.response.close()
            raise PageTooLongError
    return bytes(data)


async def bounded_lines(content: aiohttp.StreamReader, limit: int) -> AsyncIterator[bytes]:
    """The lines of a stream; of a line longer than `limit` only the first `limit` + 1 bytes are kept. What follows the
    last end of a line was cut off, and is none."""
    line = bytearray()
    async for data in content.iter_chunked(CHUNK):
        *ended, rest = data.split(b"\n")
        for part in ended:
            line += part[: limit + 1 - len(line)]
            if line:
                yield bytes(line)
            line = bytearray()
        line += rest[: limit + 1 - len(line)]


UNDECLARED = re.compile(r"\.status\.([\w.\[\]=\":,-]+): field not declared in schema")


def without(status: Mapping[str, Any], paths: Iterable[str]) -> dict[str, Any]:
    """A copy of `status` without these fields, e.g. `progress.stage` or `attempts[0].lostSteps`."""
    copied: dict[str, Any] = copy.deepcopy(dict(status))
    for each in paths:
        nodes: list[Any] = [copied]
        *steps, last = re.sub(r"\[[^\]]*\]", "", each).split(".")
        for step in steps:
            values = [node[step] for node in nodes if isinstance(node, dict) and step in node]
            nodes = [item for value in values for item in (value if isinstance(value, list) else [value])]
        for node in nodes:
            if isinstance(node, dict):
                node.pop(last, None)
    return copied


@dataclass(frozen=True)
class Read:
    """How to request a list, what to keep of each object, and where to put the uids of unreadable ones."""

    accept: str = JSON
    keep: Callable[[Any], Any] = lambda body: body
    unread: set[str] | None = None
    listed_at: Callable[[str], None] = lambda version: None
    """Called with the list's resourceVersion, after which a watch brings all that changes, once for each page."""


@dataclass
class Cluster:
    """The API server, accessed as the operator's own user."""

    client: ApiClient
    note: Callable[[str, Skipped], None] = lambda kind, skipped: None
    """Called with kind and name of each object that could not be read."""
    fence: Callable[[], None] = lambda: None
    """Called before each write; it does not return if this operator must not write any more."""
    agent: str = "hone-operator"

    @classmethod
    async def connect(cls, connections: int = 20, fence: Callable[[], None] | None = None) -> "Cluster":
        """Connect with the pod's service account, or outside a pod with KUBECONFIG."""
        configuration = Configuration()
        try:
            kube_config.load_incluster_config(client_configuration=configuration)
        except kube_config.ConfigException:
            await kube_config.load_kube_config(client_configuration=configuration)
        configuration.connection_pool_maxsize = connections
        # Otherwise aiohttp looks for a .netrc, in a thread, on every request.
        configuration.client_session_kwargs = {"trust_env": False}
        if fence is None:
            return cls(ApiClient(configuration))
        configuration.client_session_kwargs["trace_configs"] = [fenced(fence)]
        return cls(ApiClient(configuration), fence=fence)

    async def close(self) -> None:
        await self.client.close()

    async def _call(
        self,
        verb: str,
        path: str,
        body: Any = None,
        query: Mapping[str, str] | None = None,
        content_type: str = JSON,
        accept: str = JSON,
        most: int | None = None,
    ) -> bytes:
        """The body of the answer; `PageTooLongError` if it has more than `most` bytes."""
        response = await self._send(verb, path, body, query, content_type, accept)
        data: bytes = await (response.read() if most is None else _read(response, most))
        if response.status >= 400:
            raise error_of(response.status, data, response.headers, verb)
        return data

    async def _send(
        self,
        verb: str,
        path: str,
        body: Any = None,
        query: Mapping[str, str] | None = None,
        content_type: str = JSON,
        accept: str = JSON,
        within: aiohttp.ClientTimeout = TIMEOUT,
    ) -> Any:
        """The answer, whose body is not read."""
        configuration = self.client.configuration
        url = configuration.host + path
        if query:
            url += "?" + urlencode(query)
        headers = {"Accept": accept, "Content-Type": content_type, "User-Agent": self.agent}
        if token := await configuration.get_api_key_with_prefix("BearerToken"):
            headers["Authorization"] = token
        if is_write(verb, path):
            self.fence()
        return await self.client.rest_client.request(verb, url, headers=headers, body=body, _request_timeout=within)

    async def get(self, kind: str, namespace: str | None, name: str) -> dict[str, Any] | None:
        """The current object, or None.

        Raises:
            UnreadableObjectError, ClusterError
        """
        try:
            raw = await self._call("GET", url_path(kind, namespace, name))
        except NotFoundError:
            return None
        try:
            body: dict[str, Any] = decode(raw)
        except UnreadableError as error:
            self.note(kind, Skipped(error.reason, error.message, identity(raw)))
            raise UnreadableObjectError(0, error.reason, f"{kind} {namespace}/{name}: {error.message}") from None
        return body

    async def exists(self, kind: str, namespace: str, name: str) -> bool:
        """Whether the object is there, from the API server's memory: cheap, and perhaps a moment old.

        Raises:
            ClusterError: also when the namespace is gone.
        """
        try:
            await self._call(
                "GET", url_path(kind, namespace, name), query={"resourceVersion": "0"}, accept=METADATA_ONLY
            )
        except NotFoundError:
            return False
        return True

    async def list(self, kind: str, namespace: str | None, labels: str = "", fields: str = "") -> list[dict[str, Any]]:
        """Objects by label and field selector."""
        return [body async for body in self._chunks(kind, namespace, labels, fields)]

    async def scan(
        self,
        kind: str,
        namespace: str | None,
        labels: str = "",
        metadata_only: bool = False,
        unread: set[str] | None = None,
        listed_at: Callable[[str], None] = lambda version: None,
    ) -> AsyncIterator[dict[str, Any]]:
        """Every object of a kind, stripped; the uids of unreadable ones go to `unread`. For `listed_at` see `Read`."""
        accept = METADATA_LIST if metadata_only else JSON
        read = Read(accept, lambda body: strip(kind, body), unread, listed_at)
        async for body in self._chunks(kind, namespace, labels, read=read):
            yield body

    async def each(self, kind: str, namespace: str, fields: str, unread: set[str]) -> AsyncIterator[dict[str, Any]]:
        """Objects by field selector, whole, in chunks; the uids of unreadable ones go to `unread`."""
        async for body in self._chunks(kind, namespace, fields=fields, read=Read(unread=unread)):
            yield body

    async def watch(
        self,
        kind: str,
        namespace: str | None,
        labels: str,
        version: str,
        metadata_only: bool = False,
        accepted: Callable[[], None] = lambda: None,
    ) -> AsyncGenerator[bytes, None]:
        """The lines of a watch, each an event; of one that is larger than we read, the beginning.

        Args:
            accepted: called once the API server answers that it watches.

        Raises:
            ClusterError: 410 Gone where the version is too old, or the API server refuses it.
        """
        query = {
            "watch": "true",
            "allowWatchBookmarks": "true",
            "resourceVersion": version,
            "timeoutSeconds": str(WATCH_SECONDS),
        }
        query |= {"labelSelector": labels} if labels else {}
        accept = METADATA_ONLY if metadata_only else JSON
        response = await self._send("GET", url_path(kind, namespace), query=query, accept=accept, within=WATCH_TIMEOUT)
        try:
            if response.status >= 400:
                raise error_of(response.status, await response.read(), response.headers, "GET")
            accepted()
            async for line in bounded_lines(response.response.content, MAX_BYTES + ENVELOPE):
                yield line
        finally:
            response.response.close()

    async def _chunks(
        self,
        kind: str,
        namespace: str | None,
        labels: str = "",
        fields: str = "",
        read: Read | None = None,
    ) -> AsyncIterator[dict[str, Any]]:
        """Objects by selector, read in chunks; unreadable ones are noted and left out."""
        read = read or Read()
        query = {k: v for k, v in (("labelSelector", labels), ("fieldSelector", fields)) if v}

        async def page(token: str, most: int) -> bytes:
            asked = query | {"limit": str(most)} | ({"continue": token} if token else {})
            bound = MAX_PAGE_BYTES if most > 1 else None
            return await self._call("GET", url_path(kind, namespace), query=asked, accept=read.accept, most=bound)

        try:
            async with contextlib.aclosing(pages(page)) as raws:
                async for raw in raws:
                    listed = await decode_list_aside(raw, read.keep)
                    read.listed_at(listed.version)
                    for body in listed.items:
                        yield body
                    self._note(kind, listed.skipped, read)
        except UnreadableError as error:
            raise ClusterError(0, error.reason, error.message) from None

    def _note(self, kind: str, skipped: Sequence[Skipped], read: Read) -> None:
        for each in skipped:
            self.note(kind, each)
            if read.unread is not None:
                read.unread.add(each.metadata.get("uid", ""))

    async def create(self, body: Mapping[str, Any], brief: bool = False) -> dict[str, Any]:
        """Create the object; `brief` returns it as sent, with the metadata that it received.

        Raises:
            AlreadyExistsError, RefusedError, ClusterError
        """
        target = url_path(body["kind"], body["metadata"].get("namespace"))
        query = {"fieldManager": FIELD_MANAGER}
        answer = await self._call("POST", target, body, query, accept=METADATA_ONLY if brief else JSON)
        return {**body, "metadata": json.loads(answer)["metadata"]} if brief else json.loads(answer)

    async def replace(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """Replace the object if it has not changed since it was read.

        Raises:
            ConflictError: it has.
        """
        meta = body["metadata"]
        target = url_path(body["kind"], meta["namespace"], meta["name"])
        replaced: dict[str, Any] = json.loads(await self._call("PUT", target, body))
        return replaced

    async def apply(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """Server-side apply, forcing our fields. metadata.uid and resourceVersion are preconditions.

        Raises:
            ConflictError: a precondition does not hold.
        """
        meta = body["metadata"]
        target = url_path(body["kind"], meta["namespace"], meta["name"])
        applied: dict[str, Any] = json.loads(await self._call("PATCH", target, body, FORCE, APPLY))
        return applied

    async def set_labels(self, kind: str, body: Mapping[str, Any], labels: Mapping[str, str]) -> dict[str, Any]:
        """Set some labels of exactly this object.

        Raises:
            ConflictError: another object has its name.
        """
        meta = body["metadata"]
        patch = {"metadata": {"uid": meta["uid"], "labels": dict(labels)}}
        target = url_path(kind, meta["namespace"], meta["name"])
        query = {"fieldManager": FIELD_MANAGER}
        changed: dict[str, Any] = json.loads(await self._call("PATCH", target, patch, query, MERGE_PATCH))
        return changed

    async def apply_status(self, kind: str, owner: Mapping[str, Any], status: Mapping[str, Any]) -> dict[str, Any]:
        """Write the whole status of one of our objects if it was not replaced; return the object after the write.

        Raises:
            NotFoundError, ConflictError: it was deleted, or another object has its name.
            TooLargeError: the object with this status exceeds the storage limit.
        """
        meta = owner["metadata"]
        ours = {"name": meta["name"], "namespace": meta["namespace"], "uid": meta["uid"]}
        body = {"apiVersion": API_VERSION, "kind": kind, "metadata": ours, "status": status}
        target = url_path(kind, meta["namespace"], meta["name"], "status")
        remaining = dict(status)
        accept = JSON if _gone(owner.get("status") or {}, status) else METADATA_ONLY
        while True:
            try:
                answer = await self._call("PATCH", target, {**body, "status": remaining}, FORCE, APPLY, accept)
                break
            except TooLargeError:
                answer = await self._replace_status(target, meta["uid"], remaining)
                break
            except ClusterError as error:
                less = without(remaining, UNDECLARED.findall(error.message))  # it names one at a time
                if less == remaining:
                    raise
                # The definition is from an older version: fields that it lacks cannot be written, all others can.
                log.warning("%s %s/%s: %s", kind, ours["namespace"], ours["name"], error.message)
                remaining = less
        stored = json.loads(answer)
        if left := _gone(stored.get("status") or {}, remaining):
            # Somebody else wrote them too, so an apply without them removes only our claim to them.
            ours_alone = {"metadata": {"uid": meta["uid"]}, "status": {name: remaining.get(name) for name in left}}
            query = {"fieldManager": FIELD_MANAGER}
            stored = json.loads(await self._call("PATCH", target, ours_alone, query, MERGE_PATCH, METADATA_ONLY))
        written = stored["metadata"]
        if written.get("generation") != meta.get("generation"):
            # The user changed the spec meanwhile. Our copy is old, and the write made it look new: the
            # watch would bring nothing newer, and the change would never be seen.
            live = await self.get(kind, meta["namespace"], meta["name"])
            if live is None:
                raise NotFoundError(404, "NotFound", f"{kind} {meta['name']} is gone")
            return live
        named = {UNKNOWN: meta[UNKNOWN]} if UNKNOWN in meta else {}
        return {**owner, "metadata": {**named, **written}, "status": dict(status)}

    async def _replace_status(self, target: str, uid: str, status: Mapping[str, Any]) -> bytes:
        """Write the status of an object for which the API server cannot also store the managers of its fields.

        An apply must record them: with very many labels they are as large as the labels, and more than etcd accepts.
        For any other write the API server leaves them out.
        """
        patch = [
            {"op": "test", "path": "/metadata/uid", "value": uid},
            {"op": "add", "path": "/status", "value": dict(status)},
        ]
        query = {"fieldManager": FIELD_MANAGER}
        try:
            return await self._call("PATCH", target, patch, query, JSON_PATCH, METADATA_ONLY)
        except RefusedError as error:
            if error.message.startswith(PATCH_REFUSED):
                raise ConflictError(409, "Conflict", "another object has its name") from None
            raise

    async def delete(self, kind: str, body: Mapping[str, Any]) -> bool:
        """Delete exactly this object and what it owns; another of its name stays, and so does a changed ModelVersion,
        or a changed Job that delivers one: it may have ended, and nothing else knows where the files are.

        Returns:
            Whether it has gone, and not only begun to go, as with a finalizer.

        Raises:
            ConflictError: it was refused although the object is still there. The next run tries again: no watch
                reports a Service or NetworkPolicy that stays.
        """
        meta = body["metadata"]
        delivers = (meta.get("labels") or {}).get(COMPONENT) == DELIVER
        as_seen = ("uid", "resourceVersion") if kind == "ModelVersion" or delivers else ("uid",)
        options = {
            "apiVersion": "v1",
            "kind": "DeleteOptions",
            "propagationPolicy": "Background",
            "preconditions": {name: meta[name] for name in as_seen},
        }
        try:
            answer = await self._call("DELETE", url_path(kind, meta["namespace"], meta["name"]), options)
        except NotFoundError:
            return True
        except ConflictError:
            live = await self.get(kind, meta["namespace"], meta["name"])
            if live is not None and live["metadata"]["uid"] == meta["uid"]:
                raise
            return False  # another has its name, which the watch reports
        return bool(json.loads(answer)["kind"] == "Status")

    async def log_tail(self, namespace: str, pod: str, container: str, lines: int) -> str | None:
        """The last lines of a pod's log without credentials, or None if there is no log."""
        query = {"container": container, "tailLines": str(lines), "limitBytes": str(MAX_LOG_BYTES * 4)}
        try:
            data = await self._call("GET", url_path("Pod", namespace, pod, "log"), query=query)
        except ClusterError as error:
            log.info("no log of pod %s/%s: %s", namespace, pod, error)
            return None
        # Hide credentials before cutting: half a credential is not recognised.
        return hide_credentials(data.decode(errors="replace"))[-MAX_LOG_BYTES:] or None


def _gone(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """Fields of a status that are absent afterwards, and lists with fewer entries."""
    return [
        name
        for name, value in before.items()
        if name not in after or (isinstance(value, list) and len(value) > len(after[name]))
    ]
