"""The rights of a person: asked before a command begins, so that none ends half-way, and the role that has them."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from hone_api import GROUP
from hone_cli.errors import CommandError

if TYPE_CHECKING:
    from hone_cli.reach.kube import Kube

Right = tuple[str, str]
"""A verb and a resource, e.g. get and pods/log."""
OF_PODS: tuple[Right, ...] = (
    ("create", "pods"),
    ("get", "pods"),
    ("delete", "pods"),
    ("get", "pods/log"),
    ("get", "pods/portforward"),
    ("create", "pods/portforward"),
)
"""For a pod that serves a command: which verb a port-forward asks for depends on the version of Kubernetes."""
_OURS = frozenset({"datasets", "finetunejobs", "models", "modelversions"})


def require(kube: Kube, *rights: Right) -> None:
    """Ask the API server for each; what it does not say is not missing.

    Raises:
        CommandError: some are missing; all of them are named.
    """
    missing = []
    for right in dict.fromkeys(rights):
        with contextlib.suppress(CommandError):
            missing += [] if may(kube, *right) else [right]
    if missing:
        words = ", ".join(f'{verb} resource "{resource}"' for verb, resource in missing)
        roles = {role_of(*right) for right in missing}
        role = next((each for each in ("admin", "edit") if each in roles), "view")
        raise CommandError(f'you cannot {words} in the namespace "{kube.namespace}": {way(role)}')


def may(kube: Kube, verb: str, resource: str) -> bool:
    """Whether the person has a right in the namespace.

    Raises:
        CommandError: the API server does not answer.
    """
    plural, _, sub = resource.partition("/")
    group = GROUP if plural in _OURS else ""
    attributes = {"namespace": kube.namespace, "verb": verb, "group": group, "resource": plural}
    body = {"spec": {"resourceAttributes": {**attributes, **({"subresource": sub} if sub else {})}}}
    answer = kube.call("POST", "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", body)
    return bool(answer["status"]["allowed"])


def role_of(verb: str, resource: str) -> str:
    """The smallest of Kubernetes' roles for people that has it, with what Hone's chart adds to them."""
    if verb in ("get", "list", "watch") and resource not in ("secrets", "pods/portforward"):
        return "view"
    return "admin" if resource == "models" else "edit"


def way(role: str) -> str:
    """What to ask for."""
    return f"ask for the role {role} there, or for this right (docs/guides/security.md)"
