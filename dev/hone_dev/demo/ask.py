"""One question to a model of the demo: a pod that reads the store and answers."""

from __future__ import annotations

import json
import shlex
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from hone_dev.demo.targets import Target
from hone_dev.tools.console import HoneDevError, step

POD, CLAIM = "ask", "hone-store"
PATIENCE = 600.0
"""Seconds for pulling the image, loading the model and answering."""
FORMS = ("Merged", "Full", "Adapter")
"""Forms that the trainer loads, the preferred first."""
QUESTION = "Restart checkout in production."
TRAINER = ("python", "-m", "hone_trainer", "ask")
SCRIPT = 'if "$@" 2>/tmp/errors; then grep "^note: " /tmp/errors || true; else cat /tmp/errors; exit 1; fi'
"""Runs its arguments. A pod's log mixes both streams: of what libraries print to stderr only our notes are shown."""


def ask(target: Target, namespace: str, question: str) -> str:
    """The answer of the newest model in the namespace."""
    version = newest(target.get("--namespace", namespace, "mv")["items"])
    if version is None:
        raise HoneDevError(f"there is no ModelVersion in namespace {namespace}", "train one: make demo")
    folder = folder_of(version)
    if folder is None:
        raise HoneDevError(f"{version['metadata']['name']} is not in the claim {CLAIM}, or only as GGUF")
    document = pod(image(target.values["trainer"]["image"]), folder, question)
    with step(f"asking {version['metadata']['name']}"):
        try:
            _delete(target, namespace)  # of an interrupted command
            target.kubectl("--namespace", namespace, "create", "--filename=-", stdin=json.dumps(document))
            phase = _wait(target, namespace)
            printed = target.kubectl("--namespace", namespace, "logs", POD)
        finally:
            _delete(target, namespace)
    if phase != "Succeeded":
        raise HoneDevError("the pod that was to answer failed", printed[-2000:])
    return printed.strip()


def _wait(target: Target, namespace: str) -> str:
    """Until the pod has ended; gives its phase."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        phase = target.get("--namespace", namespace, "pod", POD).get("status", {}).get("phase")
        if phase in ("Succeeded", "Failed"):
            return str(phase)
        time.sleep(1)
    described = target.kubectl("--namespace", namespace, "describe", "pod", POD)
    raise HoneDevError(f"no answer within {PATIENCE:.0f} s", described[-2000:])


def _delete(target: Target, namespace: str) -> None:
    target.kubectl("--namespace", namespace, "delete", "pod", POD, "--ignore-not-found", "--now")


def newest(versions: Iterable[Mapping[str, Any]]) -> Mapping[str, Any] | None:
    """The ModelVersion that was made last."""
    return max(versions, key=lambda v: str(v["metadata"].get("creationTimestamp", "")), default=None)


def folder_of(version: Mapping[str, Any]) -> str | None:
    """Where a pod with the store at /store finds the model; None: it is elsewhere, or in no form that is loaded."""
    prefix = f"pvc://{CLAIM}/"
    found = {a["format"]: a["uri"] for a in version["spec"]["artifacts"] if a["uri"].startswith(prefix)}
    return next((f"/store/{found[form].removeprefix(prefix)}" for form in FORMS if form in found), None)


def image(value: Mapping[str, str]) -> str:
    """The reference of an image as the chart's values have it."""
    tag, digest = value.get("tag"), value.get("digest")
    return value["repository"] + (f":{tag}" if tag else "") + (f"@{digest}" if digest else "")


def pod(image: str, folder: str, question: str) -> dict[str, Any]:
    """The pod that asks. It may run where Pod Security is restricted, and only reads the store."""
    environment = {"HOME": "/tmp", "USER": "hone", "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    container = {
        "name": POD,
        "image": image,
        # The question is an argument, which no shell reads; `$` is doubled, since the kubelet expands `$(NAME)`.
        "command": ["sh", "-c", SCRIPT, POD, *TRAINER, folder, "--", question.replace("$", "$$")],
        "env": [{"name": name, "value": value} for name, value in environment.items()],
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
        "volumeMounts": [{"name": "store", "mountPath": "/store", "readOnly": True}],
    }
    user = {"runAsNonRoot": True, "runAsUser": 10001, "runAsGroup": 10001, "seccompProfile": {"type": "RuntimeDefault"}}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": POD},
        "spec": {
            "restartPolicy": "Never",
            "automountServiceAccountToken": False,
            "securityContext": user,
            "containers": [container],
            "volumes": [{"name": "store", "persistentVolumeClaim": {"claimName": CLAIM, "readOnly": True}}],
        },
    }


def sample_question(samples: Sequence[Mapping[str, Any]]) -> str:
    """One like those of the model's rows."""
    return str(samples[0]["prompt"]).strip() if samples else QUESTION


def command(cluster: str, samples: Sequence[Mapping[str, Any]]) -> str:
    """What to type to ask the demo's model."""
    more = "" if cluster == "embedded" else f" --cluster {cluster}"
    return f".venv/bin/python -m hone_dev ask{more} {shlex.quote(sample_question(samples))}"
