"""Explains in the pod's log why a report did not reach the operator: once for each reason, not for each report."""

from __future__ import annotations

import json
import socket
import ssl
import urllib.error
from collections.abc import Callable
from http import HTTPStatus

PATIENCE = 5
"""Failed reports in a row before the log mentions them: a server may miss a few while it restarts."""
GOES_ON = "The run continues and its result counts; only the progress in its status is not updated"
MAX_WORDS = 300
REMEDIES = {
    401: "the API server does not know this pod's token, or not for the audience of Hone: see the operator's log",
    403: "this pod is not one of the running attempt of the FineTuneJob: see the operator's log",
    404: "the FineTuneJob is gone, or the operator does not watch its namespace",
    413: "trainer and operator are of different versions: install the same version of both images",
    422: "trainer and operator are of different versions: install the same version of both images",
}
"""What to check, by the HTTP status of the answer."""


class FailedReports:
    """Logs why reports fail."""

    def __init__(self, host: str, log: Callable[[str], None]) -> None:
        self._host, self._log = host, log
        self._reported: set[str] = set()
        self._missed = 0

    def accepted(self) -> None:
        """Record that a report arrived."""
        self._missed = 0

    def failed(self, error: Exception) -> bool:
        """Record that a report failed; log the reason unless it is temporary or was logged. Returns whether it is
        temporary."""
        self._missed += 1
        kind, words, lasts = explain(error)
        if kind not in self._reported and (lasts or self._missed >= PATIENCE):
            self._reported.add(kind)
            self._log(f"The operator at {self._host} does not get this run's progress: {words}. {GOES_ON}.")
        return not lasts


def explain(error: Exception) -> tuple[str, str, bool]:
    """(kind, the reason and what to do, whether it persists until somebody acts)."""
    if isinstance(error, urllib.error.HTTPError):
        return _answer(error)
    cause = error.reason if isinstance(error, urllib.error.URLError) else error
    if isinstance(cause, ssl.SSLCertVerificationError):
        words = (
            f"its certificate is not trusted ({cause.verify_message}). Its TLS Secret was made again after this pod"
            " started, or something between them answers in its place; bring the old Secret back, or leave it: the"
            " next attempt of the job trusts the new one"
        )
        return "certificate", words, True
    if isinstance(cause, socket.gaierror):
        words = (
            f"its name cannot be resolved ({cause.strerror}). See whether the Service exists, whether clusterDomain"
            " of the chart is the cluster's, and whether a NetworkPolicy lets this pod reach DNS"
        )
        return "name", words, True
    if isinstance(cause, FileNotFoundError):
        return "token", f"this pod has no token ({cause.filename}); the kubelet mounts it", True
    words = (
        f"it cannot be reached ({cause or type(cause).__name__}). See whether the operator runs, and whether a"
        " NetworkPolicy lets this pod reach its progress port"
    )
    return "connection", words, False


def _answer(error: urllib.error.HTTPError) -> tuple[str, str, bool]:
    remedy = REMEDIES.get(error.code, "see the operator's log")
    try:
        name = HTTPStatus(error.code).phrase
    except ValueError:
        name = "an unknown status"
    reason = _message(error)
    words = f"it answered {error.code} {name}{f' ({reason})' if reason else ''}; {remedy}"
    return str(error.code), words, error.code in REMEDIES


def _message(error: urllib.error.HTTPError) -> str:
    """The message of a Kubernetes Status, on one line; empty for any other body."""
    try:
        message = json.loads(error.read(64 * 1024))["message"]
    except Exception:  # a truncated body, or not JSON, or another shape: the code alone must do
        return ""
    if not isinstance(message, str):
        return ""
    return "".join(c for c in " ".join(message.split()) if c.isprintable())[:MAX_WORDS]
