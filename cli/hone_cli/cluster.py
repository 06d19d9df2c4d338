"""A review in a cluster: a pod beside the data, made and reached with the reviewer's own rights.

Decisions are written where the rows are. In the end the Dataset is marked with what was decided, and the operator lets
its Job look again.
"""

from __future__ import annotations

import contextlib
import getpass
import json
import secrets
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

import typer
from kubernetes import client, config
from kubernetes.client.exceptions import ApiException
from kubernetes.stream import portforward
from urllib3.exceptions import HTTPError

from hone_api import GROUP, VERSION
from hone_api.review import MAX_REVIEWER
from hone_api.synthesis import REVIEW, SyntheticRows
from hone_cli import pod
from hone_cli.local import tell_page
from hone_cli.remote import Remote
from hone_cli.reviews import ReviewError
from hone_cli.server import digest
from hone_cli.tunnel import Tunnel

_START_SECONDS = 300.0
"""Longest wait for the pod; an image that is not on the node yet is large."""
T = TypeVar("T")


@dataclass
class Kube:
    """What a review needs of the API server. All raise ReviewError with the server's words."""

    namespace: str
    configuration: client.Configuration
    _api: client.ApiClient = field(init=False)

    def __post_init__(self) -> None:
        self._api = client.ApiClient(self.configuration)
        self.core = client.CoreV1Api(self._api)

    @classmethod
    def load(cls, context: str | None, namespace: str | None) -> Kube:
        """As kubectl: KUBECONFIG, its current context and that one's namespace."""
        configuration = client.Configuration()
        try:
            config.load_kube_config(context=context, client_configuration=configuration)
            contexts, active = config.list_kube_config_contexts()
        except config.ConfigException as error:
            raise ReviewError(f"no cluster: {error}. Name a folder in --path to review without one.") from None
        chosen = next((c for c in contexts if c["name"] == context), active)
        return cls(namespace or chosen["context"].get("namespace") or "default", configuration)

    def user(self) -> str | None:
        """Who the API server takes us for; None: it has no such call (before 1.28), or refuses it.

        Raises:
            ReviewError: it does not answer.
        """
        try:
            found = client.AuthenticationV1Api(self._api).create_self_subject_review({})
        except ApiException as error:
            if error.status in (403, 404):
                return None
            raise ReviewError(_words(error)) from None
        except HTTPError as error:
            raise _unreachable(error) from None
        return str(found.status.user_info.username)

    def dataset(self, name: str) -> dict[str, Any]:
        """A Dataset."""
        custom = client.CustomObjectsApi(self._api)
        found = _asked(lambda: custom.get_namespaced_custom_object(GROUP, VERSION, self.namespace, "datasets", name))
        return dict(found)

    def mark(self, dataset: str, mark: str) -> None:
        """Tell the operator that people have decided."""
        custom = client.CustomObjectsApi(self._api)
        body = {"metadata": {"annotations": {REVIEW: mark}}}
        _asked(
            lambda: custom.patch_namespaced_custom_object(
                GROUP, VERSION, self.namespace, "datasets", dataset, body, field_manager="hone-review"
            )
        )

    def stream(self, name: str) -> tuple[Any, Callable[[], None]]:
        """One connection to the review's port in a pod."""
        # A client of its own: opening a stream changes it for the moment, and connections come in parallel.
        core = client.CoreV1Api(client.ApiClient(self.configuration))
        forward = portforward(core.connect_get_namespaced_pod_portforward, name, self.namespace, ports=str(pod.PORT))
        return forward.socket(pod.PORT), forward.close


@dataclass
class Session:
    """A review while its pod runs."""

    kube: Kube
    dataset: dict[str, Any]
    reviews: Remote
    tunnel: Tunnel

    def wait_for_page(self) -> None:
        """Tell the page's address, and wait for Ctrl-C."""
        with contextlib.suppress(KeyboardInterrupt):
            tell_page(self.tunnel.port, self.reviews.token)
            threading.Event().wait()

    def finish(self) -> SyntheticRows:
        """Mark the Dataset, where anything was decided that it does not know; gives the counts."""
        state = self.reviews.state()
        meta = self.dataset["metadata"]
        known = (meta.get("annotations") or {}).get(REVIEW)
        if state.mark and state.mark != known:
            self.kube.mark(meta["name"], state.mark)
            typer.echo(
                f"Dataset {meta['name']} takes the decisions in: "
                f"kubectl get dataset {meta['name']} --namespace {meta['namespace']}"
            )
        return state.counts


@contextlib.contextmanager
def session(
    name: str, namespace: str | None, context: str | None, reviewer: str | None, port: int
) -> Iterator[Session]:
    """A review of a Dataset's batch, in a pod that is deleted in the end.

    Raises:
        ReviewError: there is no such Dataset, nothing of it is generated, or the pod cannot run.
    """
    kube = Kube.load(context, namespace)
    dataset = kube.dataset(name)
    token = secrets.token_urlsafe(32)
    made = start(kube, dataset, token, reviewer)
    try:
        _wait(kube, made)
        tunnel = Tunnel(lambda: kube.stream(made), port)
        try:
            yield Session(kube, dataset, Remote(tunnel.url, token), tunnel)
        finally:
            tunnel.close()
    finally:
        with contextlib.suppress(ReviewError):
            _asked(lambda: kube.core.delete_namespaced_pod(made, kube.namespace))


def signature(name: str | None, user: str | None) -> str:
    """How a review in a cluster is signed: by the user that the API server knows, whatever name is given.

    Args:
        name: of the option --reviewer; it tells people apart who share a user.
        user: of the API server.

    Raises:
        ReviewError: it is longer than a decision can hold.
    """
    if user is None:
        signed = f"{name or getpass.getuser()} (not confirmed by the API server)"
    else:
        signed = user if name in (None, user) else f"{name} (as {user})"
    if len(signed) > MAX_REVIEWER:
        raise ReviewError(
            f"decisions would be signed {signed!r}, more than {MAX_REVIEWER} characters: shorten --reviewer"
        )
    return signed


def start(kube: Kube, dataset: Mapping[str, Any], token: str, reviewer: str | None) -> str:
    """Make the pod of a review; gives its name.

    Raises:
        ReviewError: `pod.review_pod` has nothing to show, or the API server refuses.
    """
    body = pod.review_pod(dataset, digest(token), signature(reviewer, kube.user()))
    made = str(body["metadata"]["name"])
    typer.echo(f"Starting pod {made} from image {body['spec']['containers'][0]['image']} …")
    _asked(lambda: kube.core.create_namespaced_pod(kube.namespace, body))
    return made


def _wait(kube: Kube, name: str) -> None:
    """Until the pod serves."""
    deadline = time.monotonic() + _START_SECONDS
    while True:
        found = _asked(lambda: kube.core.read_namespaced_pod(name, kube.namespace))
        statuses = found.status.container_statuses or []
        if found.status.phase in ("Failed", "Succeeded"):
            log = _asked(lambda: kube.core.read_namespaced_pod_log(name, kube.namespace, tail_lines=5))
            raise ReviewError(f"pod {name} ended: {log}")
        if statuses and statuses[0].ready and _listens(kube, name):
            return
        if time.monotonic() > deadline:
            raise ReviewError(f"pod {name} does not start: {_obstacle(found) or found.status.phase}")
        time.sleep(1)


def _listens(kube: Kube, name: str) -> bool:
    log = _asked(lambda: kube.core.read_namespaced_pod_log(name, kube.namespace, tail_lines=5))
    return pod.LISTENING in log


def _obstacle(found: Any) -> str | None:
    for status in found.status.container_statuses or []:
        if status.state.waiting:
            return f"{status.state.waiting.reason}: {status.state.waiting.message or ''}"
    for condition in found.status.conditions or []:
        if condition.status == "False" and condition.message:
            return str(condition.message)
    return None


def _asked(call: Callable[[], T]) -> T:
    try:
        return call()
    except ApiException as error:
        raise ReviewError(_words(error)) from None
    except HTTPError as error:
        raise _unreachable(error) from None


def _unreachable(error: HTTPError) -> ReviewError:
    return ReviewError(f"the cluster does not answer: {error}")


def _words(error: ApiException) -> str:
    """The API server's message: it names the object, and the right that is missing."""
    try:
        return str(json.loads(error.body)["message"])
    except (TypeError, ValueError, KeyError):
        return f"{error.status} {error.reason}"
