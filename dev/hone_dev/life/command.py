"""`python -m hone_dev life`: the life of a model on the embedded cluster, from the files of example 13."""

from __future__ import annotations

import json
import tempfile
import time
from pathlib import Path

from rich.markup import escape
from rich.table import Table

from hone_dev.demo.command import ENABLED, RESTRICTED, install
from hone_dev.demo.targets import Target, embedded
from hone_dev.life import places, platform
from hone_dev.life.stages import ADA, BOB, NAMESPACE, STAGES, Life
from hone_dev.models import vllm, vllm_pod
from hone_dev.tools.console import HoneDevError, console, note, step


def run() -> None:
    """Go through all stages and print what was seen in each.

    Raises:
        HoneDevError: a stage is not as it should be; its name is in the message. The namespace stays for a look.
    """
    target = embedded()
    vllm.python()
    install(target)
    _remove(target)
    with tempfile.TemporaryDirectory(prefix="hone-life-") as name, places.serve(Path(name)) as both:
        key = platform.make_key(Path(name) / "key")
        with platform.policies(target, key):
            _prepare(target, both, key)
            live(Life(target, both, key, Path(name)))
    _remove(target)


def live(life: Life) -> None:
    """All stages, one after the other."""
    table = Table("Stage", "Seconds", "Seen")
    try:
        for title, stage in STAGES.items():
            began = time.monotonic()
            with step(title):
                try:
                    seen = stage(life)
                except HoneDevError as error:
                    raise HoneDevError(f"stage {title}: {error}", error.hint or _look(life.target)) from error
            table.add_row(title, f"{time.monotonic() - began:.0f}", escape(seen))
    finally:
        console.print(table)


def _look(target: Target) -> str:
    return f"look: kubectl --kubeconfig {target.kubeconfig} -n {NAMESPACE} get mdl,mv,ftj,pods; the next run removes it"


def _prepare(target: Target, both: places.Places, key: Path) -> None:
    """The namespace with the rights of its people, the way to both places and the key."""
    labels = {**ENABLED, **RESTRICTED}
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE, "labels": labels}}
    bindings = [person.binding() for person in (BOB, ADA)]
    items = [namespace, *bindings, platform.signing_secret(key), *both.objects()]
    document = json.dumps({"apiVersion": "v1", "kind": "List", "items": items})
    target.kubectl("--namespace", NAMESPACE, "apply", "--server-side", "--filename=-", stdin=document)
    note(f"{BOB.name} trains and serves, {ADA.name} approves")


def _remove(target: Target) -> None:
    """What a run leaves in the cluster."""
    target.kubectl("delete", "namespace", NAMESPACE, "--ignore-not-found", "--timeout=600s")
    target.kubectl("delete", "persistentvolume", vllm_pod.volume_name(NAMESPACE), "--ignore-not-found")
