"""A review in a cluster: a pod next to the data, created and reached with the reviewer's own rights.

Decisions are written where the rows are. At the end the Dataset is marked with the decisions, and the operator starts
its Job again.
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
"""Longest wait for the pod; an image that is not yet on the node is large."""
T = TypeVar("T")


@dataclass
class Kube:
    """The API calls of a review. All raise ReviewError with the server's message."""

    namespace: str
    configuration: client.Configuration
    _api: client.ApiClient = field(init=False)

    def __post_init__(self) -> None:
        self._api = client.ApiClient(self.configuration)
        self.core = client.CoreV1Api(self._api)

    @classmethod
    def load(cls, context: str | None, namespace: str | None) -> Kube:
        """Like kubectl: KUBECONFIG, its current context and that context's namespace."""
        configuration = client.Configuration()
        try:
            config.load_kube_config(context=context, client_configuration=configuration)
            contexts, active = config.list_kube_config_contexts()
        except config.ConfigException as error:
            raise ReviewError(f"no cluster: {error}. Name a folder in --path to review without one.") from None
        chosen = next((c for c in contexts if c["name"] == context), active)
        return cls(namespace or chosen["context"].get("namespace") or "default", configuration)

    def user(self) -> str | None:
        """The user name that the API server has for us; None: it has no such call (before 1.28), or refuses it.

        Raises:
            ReviewError: the API server does not answer.
        """
        try:
            review = client.AuthenticationV1Api(self._api).create_self_subject_review({})
        except ApiException as error:
            if error.status in (403, 404):
                return None
            raise ReviewError(_words(error)) from None
        except HTTPError as error:
            raise _unreachable(error) from None
        return str(review.status.user_info.username)

    def dataset(self, name: str) -> dict[str, Any]:
        """A Dataset."""
        custom = client.CustomObjectsApi(self._api)
        body = _asked(lambda: custom.get_namespaced_custom_object(GROUP, VERSION, self.namespace, "datasets", name))
        return dict(body)

    def mark(self, dataset: str, mark: str) -> None:
        """Notify the operator of decisions."""
        custom = client.CustomObjectsApi(self._api)
        body = {"metadata": {"annotations": {REVIEW: mark}}}
        _asked(
            lambda: custom.patch_namespaced_custom_object(
                GROUP, VERSION, self.namespace, "datasets", dataset, body, field_manager="hone-review"
            )
        )

    def stream(self, name: str) -> tuple[Any, Callable[[], None]]:
        """One connection to the review's port in a pod."""
        # A separate client: opening a stream changes the client for the moment, and connections come in parallel.
        core = client.CoreV1Api(client.ApiClient(self.configuration))
        forward = portforward(core.connect_get_namespaced_pod_portforward, name, self.namespace, ports=str(pod.PORT))
        return forward.socket(pod.PORT), forward.close


@dataclass
class Session:
    """A review during which its pod runs."""

    kube: Kube
    dataset: dict[str, Any]
    reviews: Remote
    tunnel: Tunnel

    def wait_for_page(self) -> None:
        """Print the page's address, and wait for Ctrl-C."""
        with contextlib.suppress(KeyboardInterrupt):
            tell_page(self.tunnel.port, self.reviews.token)
            threading.Event().wait()

    def finish(self) -> SyntheticRows:
        """Mark the Dataset if there are decisions that it does not include; returns the counts."""
        state = self.reviews.state()
        meta = self.dataset["metadata"]
        marked = (meta.get("annotations") or {}).get(REVIEW)
        if state.mark and state.mark != marked:
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
    """A review of a Dataset's batch, in a pod that is deleted at the end.

    Raises:
        ReviewError: the Dataset does not exist or has no generated rows, or the pod cannot run.
    """
    kube = Kube.load(context, namespace)
    dataset = kube.dataset(name)
    token = secrets.token_urlsafe(32)
    pod_name = start(kube, dataset, token, reviewer)
    try:
        _wait(kube, pod_name)
        tunnel = Tunnel(lambda: kube.stream(pod_name), port)
        try:
            yield Session(kube, dataset, Remote(tunnel.url, token), tunnel)
        finally:
            tunnel.close()
    finally:
        with contextlib.suppress(ReviewError):
            _asked(lambda: kube.core.delete_namespaced_pod(pod_name, kube.namespace))


def signature(name: str | None, user: str | None) -> str:
    """The signature of a review in a cluster: the user that the API server knows, whatever name is given.

    Args:
        name: of the option --reviewer; it distinguishes people who share a user.
        user: from the API server.

    Raises:
        ReviewError: it is longer than a decision allows.
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
    """Create the pod of a review and return its name.

    Raises:
        ReviewError: `pod.review_pod` has nothing to show, or the API server refuses.
    """
    body = pod.review_pod(dataset, digest(token), signature(reviewer, kube.user()))
    pod_name = str(body["metadata"]["name"])
    typer.echo(f"Starting pod {pod_name} from image {body['spec']['containers'][0]['image']} …")
    _asked(lambda: kube.core.create_namespaced_pod(kube.namespace, body))
    return pod_name


def _wait(kube: Kube, name: str) -> None:
    """Wait until the pod serves."""
    deadline = time.monotonic() + _START_SECONDS
    while True:
        pod = _asked(lambda: kube.core.read_namespaced_pod(name, kube.namespace))
        statuses = pod.status.container_statuses or []
        if pod.status.phase in ("Failed", "Succeeded"):
            log = _asked(lambda: kube.core.read_namespaced_pod_log(name, kube.namespace, tail_lines=5))
            raise ReviewError(f"pod {name} ended: {log}")
        if statuses and statuses[0].ready and _listens(kube, name):
            return
        if time.monotonic() > deadline:
            raise ReviewError(f"pod {name} does not start: {_obstacle(pod) or pod.status.phase}")
        time.sleep(1)


def _listens(kube: Kube, name: str) -> bool:
    log = _asked(lambda: kube.core.read_namespaced_pod_log(name, kube.namespace, tail_lines=5))
    return pod.LISTENING in log


def _obstacle(pod: Any) -> str | None:
    for status in pod.status.container_statuses or []:
        if status.state.waiting:
            return f"{status.state.waiting.reason}: {status.state.waiting.message or ''}"
    for condition in pod.status.conditions or []:
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
    """The API server's message, which names the object and the missing right."""
    try:
        return str(json.loads(error.body)["message"])
    except (TypeError, ValueError, KeyError):
        return f"{error.status} {error.reason}"
