"""What the command line asks of the API server, with the person's own rights."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, TypeVar

from kubernetes import client
from kubernetes.client.exceptions import ApiException
from urllib3.exceptions import HTTPError

from hone_api import GROUP, VERSION
from hone_api.blocks.retrain import RETRAIN_REQUESTED
from hone_api.dataset.synthesis import REVIEW
from hone_api.words.states import JobPhase
from hone_cli.errors import CommandError
from hone_cli.reach import connecting, pod, rights
from hone_cli.reach.connecting import unreachable

T = TypeVar("T")
_JSON = "application/json"
_NOT_IN_YAML = re.compile("[\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff]")
"""Characters that JSON has as they are, and that YAML 1.1 refuses or folds."""
_RIGHT = re.compile(r'cannot (\w+) resource "([\w/]+)".* in the namespace "')
_OF_OBJECTS = re.compile(r'(<nil>: )?Invalid value: "?(object|null)"?: ')
"""What the API server says before the message of a rule about several fields."""
_NOT_INSTALLED = (
    f"the cluster has no objects of {GROUP}: Hone is not installed there (docs/guides/install.md), or --context names "
    "another cluster than you mean"
)
_PASSING = frozenset({429, 500, 502, 503, 504})


class ServerRefusalError(CommandError):
    """The API server answers, and refuses."""

    passes = False
    """Whether the same request may be answered a moment later."""


class NoObjectError(ServerRefusalError):
    """The API server has no such object."""


class NoKindError(NoObjectError):
    """The API server has no objects of this kind."""


@dataclass
class Kube:
    """The API calls of the command line. All raise CommandError with the server's message."""

    namespace: str
    configuration: client.Configuration
    options: str = ""
    """Options of the command line that reach the same namespace again, for the commands that messages name."""
    again: Callable[[], None] | None = None
    """Reads the credentials into the configuration again. None if they cannot change."""
    _api: client.ApiClient = field(init=False)

    def __post_init__(self) -> None:
        self._api = connecting.ApiConnection(self.configuration, self.again)
        self.core = client.CoreV1Api(self._api)

    @classmethod
    def load(
        cls, context: str | None, namespace: str | None, otherwise: str = "Set KUBECONFIG, or name a --context."
    ) -> Kube:
        """Like kubectl: KUBECONFIG, its current context and that context's namespace.

        Args:
            otherwise: what to do where there is none.
        """
        configuration = client.Configuration()
        try:
            active, own = connecting.read(context, configuration)
        except CommandError as error:
            raise CommandError(f"no cluster: {error}. {otherwise}") from None

        def again() -> None:
            """Of the same context, also where another one is current now."""
            connecting.read(active, configuration)

        named = (("-n", namespace), ("--context", context))
        options = "".join(f" {option} {shlex.quote(value)}" for option, value in named if value)
        return cls(namespace or own, configuration, options, again)

    def user(self) -> str | None:
        """The user name that the API server has for us; None: it has no such call (before 1.28), or refuses it.

        Raises:
            CommandError: the API server does not answer.
        """
        try:
            review = client.AuthenticationV1Api(self._api).create_self_subject_review({})
        except ApiException as error:
            if error.status in (403, 404):
                return None
            raise CommandError(_words(error)) from None
        except HTTPError as error:
            raise unreachable(error) from None
        return str(review.status.user_info.username)

    def dataset(self, name: str) -> dict[str, Any]:
        """A Dataset."""
        custom = client.CustomObjectsApi(self._api)
        body = asked(lambda: custom.get_namespaced_custom_object(GROUP, VERSION, self.namespace, "datasets", name))
        return dict(body)

    def model_version(self, name: str) -> dict[str, Any] | None:
        """A ModelVersion; None: there is none of this name."""
        return self._named("modelversions", name)

    def model(self, name: str) -> dict[str, Any] | None:
        """A Model; None: there is none of this name."""
        return self._named("models", name)

    def _named(self, plural: str, name: str) -> dict[str, Any] | None:
        custom = client.CustomObjectsApi(self._api)
        try:
            return dict(
                asked(lambda: custom.get_namespaced_custom_object(GROUP, VERSION, self.namespace, plural, name))
            )
        except NoKindError:
            raise
        except NoObjectError:
            return None

    def model_versions(self, model: str | None) -> list[dict[str, Any]]:
        """All versions of a model; None: of all models."""
        return self._list("modelversions", f"spec.modelName={model}" if model else "")

    def all_models(self) -> list[dict[str, Any]]:
        """The Models of the namespace."""
        return self._list("models", "")

    def unfinished_jobs(self, model: str) -> list[str]:
        """Jobs that will make a version of a model, each with its phase."""
        jobs = [j for j in self._list("finetunejobs", "") if (j["spec"].get("output") or {}).get("modelName") == model]
        phases = {job["metadata"]["name"]: (job.get("status") or {}).get("phase") or JobPhase.PENDING for job in jobs}
        return [
            f"{name} is {phase}" for name, phase in phases.items() if phase not in (JobPhase.SUCCEEDED, JobPhase.FAILED)
        ]

    def has_namespace(self) -> bool | None:
        """Whether the namespace exists; None: we may not ask."""
        try:
            self.core.read_namespace(self.namespace)
        except ApiException as error:
            return False if error.status == 404 else None
        except HTTPError as error:
            raise unreachable(error) from None
        return True

    def _list(self, plural: str, selector: str) -> list[dict[str, Any]]:
        custom = client.CustomObjectsApi(self._api)
        listed = asked(
            lambda: custom.list_namespaced_custom_object(
                GROUP, VERSION, self.namespace, plural, field_selector=selector
            )
        )
        return list(listed["items"])

    def mark(self, dataset: str, mark: str) -> None:
        """Notify the operator of decisions."""
        custom = client.CustomObjectsApi(self._api)
        body = {"metadata": {"annotations": {REVIEW: mark}}}
        asked(
            lambda: custom.patch_namespaced_custom_object(
                GROUP, VERSION, self.namespace, "datasets", dataset, body, field_manager="hone-review"
            )
        )

    def request_retraining(self, model: str) -> None:
        """Ask the operator to repeat the job of a Model, at the time of the API server: the operator compares it with
        creation times, and the clock of this computer may be wrong."""
        custom = client.CustomObjectsApi(self._api)
        time = self._time().strftime("%Y-%m-%dT%H:%M:%SZ")
        body = {"metadata": {"annotations": {RETRAIN_REQUESTED: time}}}
        asked(
            lambda: custom.patch_namespaced_custom_object(
                GROUP, VERSION, self.namespace, "models", model, body, field_manager="hone-retrain"
            )
        )

    def decide(self, version: Mapping[str, Any], approval: Mapping[str, str | None], *, dry_run: bool) -> None:
        """Write spec.approval of a ModelVersion, if it is still as it was read.

        Args:
            dry_run: the API server checks it and stores nothing.
        """
        custom, meta = client.CustomObjectsApi(self._api), version["metadata"]
        unchanged = {"uid": meta["uid"], "resourceVersion": meta["resourceVersion"]}
        body = {"metadata": unchanged, "spec": {"approval": dict(approval)}}
        options = {"dry_run": "All"} if dry_run else {}
        asked(
            lambda: custom.patch_namespaced_custom_object(
                GROUP,
                VERSION,
                self.namespace,
                "modelversions",
                meta["name"],
                body,
                field_manager="hone-approve",
                **options,
            )
        )

    def _time(self) -> datetime:
        """When the API server answered, in whole seconds of its own clock."""
        _, _, headers = asked(client.VersionApi(self._api).get_code_with_http_info)
        try:
            return parsedate_to_datetime(headers["Date"]).astimezone(UTC)
        except (KeyError, ValueError):
            raise CommandError(
                "the API server does not say what time it is (header Date): set the annotation with kubectl"
            ) from None

    def call(
        self,
        method: str,
        path: str,
        body: Any = None,
        query: Mapping[str, str] | None = None,
        media: str = _JSON,
        accept: str = _JSON,
    ) -> Any:
        """The answer to a request of any kind, decoded.

        Args:
            media: the type of `body`.
            accept: the type of the answer, in JSON.
        """
        headers = {"Accept": accept, "Content-Type": media}
        sent = body if body is None or media.endswith("json") else _as_yaml(body)
        request = self._api.param_serialize(
            method,
            path,
            query_params=list((query or {}).items()),
            header_params=headers,
            body=sent,
            auth_settings=["BearerToken"],
        )

        def answered() -> Any:
            response = self._api.call_api(*request)
            response.read()
            return self._api.response_deserialize(response, {"2XX": "object"}).data

        return asked(answered)

    def stream(self, name: str) -> tuple[Any, Callable[[], None]]:
        """One connection to the port of a pod of ours."""
        path = f"/api/v1/namespaces/{self.namespace}/pods/{name}/portforward"
        forward = connecting.PodForward(self._api, path, pod.PORT)
        return forward.socket(pod.PORT), forward.close


def asked(call: Callable[[], T]) -> T:
    """What a call gives; the error of one that fails, in the words of the server."""
    try:
        return call()
    except ApiException as error:
        raise _refusal(error) from None
    except HTTPError as error:
        raise unreachable(error) from None


def _refusal(error: ApiException) -> ServerRefusalError:
    if error.status == 404:
        # A path of a kind that it does not have is answered in plain text.
        return NoObjectError(_words(error)) if str(error.body).startswith("{") else NoKindError(_NOT_INSTALLED)
    refusal = ServerRefusalError(_words(error))
    refusal.passes = error.status in _PASSING
    return refusal


def _as_yaml(body: Any) -> bytes:
    """JSON that a parser of YAML reads as the same."""
    text = json.dumps(body, ensure_ascii=False)
    return _NOT_IN_YAML.sub(lambda found: f"\\u{ord(found[0]):04x}", text).encode()


def _words(error: ApiException) -> str:
    """The API server's message, which names the object and the missing right."""
    if error.status == 401:
        return "the API server does not accept your credentials (401 Unauthorized): log in again, as for kubectl"
    try:
        words = _OF_OBJECTS.sub("", str(json.loads(error.body)["message"]))
        return f"{words}{_way(words)}" if error.status == 403 else words
    except (TypeError, ValueError, KeyError):
        return f"{error.status} {error.reason}"


def _way(words: str) -> str:
    """Which role has the right of a namespace whose lack the API server names; empty where it names none."""
    if not (right := _RIGHT.search(words)):
        return ""
    return f": {rights.way(rights.role_of(*right.groups()))}"
