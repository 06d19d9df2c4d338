"""A review in a cluster: a pod next to the data, created and reached with the reviewer's own rights.

Decisions are written where the rows are. At the end the Dataset is marked with the decisions, and the operator starts
its Job again.
"""

from __future__ import annotations

import contextlib
import getpass
import secrets
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import typer

from hone_api.dataset.review import MAX_REVIEWER
from hone_api.dataset.synthesis import REVIEW, SyntheticRows
from hone_cli.errors import CommandError
from hone_cli.local import address, print_page
from hone_cli.reach import pod, running
from hone_cli.reach.guard import digest
from hone_cli.reach.kube import Kube
from hone_cli.reach.tunnel import Tunnel
from hone_cli.review.remote import Remote


@dataclass
class Session:
    """A review during which its pod runs."""

    kube: Kube
    dataset: dict[str, Any]
    reviews: Remote
    tunnel: Tunnel

    @property
    def url(self) -> str:
        """The address of its page."""
        return address(self.tunnel.port, self.reviews.token)

    def wait_for_page(self) -> None:
        """Print the page's address, and wait for Ctrl-C."""
        with contextlib.suppress(KeyboardInterrupt):
            print_page(self.tunnel.port, self.reviews.token)
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
        CommandError: the Dataset does not exist or has no generated rows, or the pod cannot run.
    """
    kube = Kube.load(context, namespace, "Name a folder in --path to review without one.")
    with reviewing(kube, name, reviewer, port) as reached:
        yield reached


@contextlib.contextmanager
def reviewing(kube: Kube, name: str, reviewer: str | None, port: int) -> Iterator[Session]:
    """See `session`."""
    dataset = kube.dataset(name)
    token = secrets.token_urlsafe(32)
    with running.reached(kube, start(kube, dataset, token, reviewer), port) as tunnel:
        yield Session(kube, dataset, Remote(tunnel.url, token), tunnel)


def signature(name: str | None, user: str | None) -> str:
    """The signature of a review in a cluster: the user that the API server knows, whatever name is given.

    Args:
        name: of the option --reviewer; it distinguishes people who share a user.
        user: from the API server.

    Raises:
        CommandError: it is longer than a decision allows.
    """
    if user is None:
        signed = f"{name or getpass.getuser()} (not confirmed by the API server)"
    else:
        signed = user if name in (None, user) else f"{name} (as {user})"
    if len(signed) > MAX_REVIEWER:
        raise CommandError(
            f"decisions would be signed {signed!r}, more than {MAX_REVIEWER} characters: shorten --reviewer"
        )
    return signed


def start(kube: Kube, dataset: Mapping[str, Any], token: str, reviewer: str | None) -> str:
    """Create the pod of a review and return its name.

    Raises:
        CommandError: `pod.review_pod` has nothing to show, or the API server refuses.
    """
    return running.create(kube, pod.review_pod(dataset, digest(token), signature(reviewer, kube.user())))
