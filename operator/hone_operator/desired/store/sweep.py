"""The ConfigMap that remembers the content of a namespace's store, and the Job that removes some of it."""

import base64
import gzip
import re
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from typing import Any

from hone_api.plan import SweepPlan
from hone_operator.desired.core import names
from hone_operator.desired.core.job import JobName, job_with_plan
from hone_operator.desired.core.platform import Platform
from hone_operator.desired.core.pod import Work, store

PLAN = names.PLAN_FILE.name
STORED = "stored.json"
"""Key of the ledger: bytes by folder of the store, and when they were measured."""
MOST_KEYS = 5_000
"""Contents that have a key of the ledger each, which takes about 100 bytes: the key, and again in the list of the
fields that we own. An object of more than 1.5 MiB is not stored, and one of more than 1 MiB is not read."""
PACKED = "contents.gz"
"""Key of the ledger, in its binaryData, with all contents where there are more: lines of content and time."""
MOST_PACKED = 1_000_000
"""Characters of it: a larger object is not read. There is room for 27,000 unused runs, or 35,000 that are in use."""
FULL = "full.txt"
"""Key of the ledger, if it has no room for all contents: what that means."""
FULL_WORDS = (
    "This ledger has no room for all contents of the store. Those without a place here stay in the store after their "
    "objects are deleted: delete objects that nobody needs, or use more namespaces."
)
MOST_BYTES, MOST_CONTENTS = 2**22, 50_000
"""Of that text, and in it; anybody may have written it. What is beyond them stays in the store."""
_ENTRY = re.compile(r"^(\S+) (\S*)$", re.MULTILINE)
CPU, MEMORY = "100m", "512Mi"
PlanOf = Callable[[Mapping[str, Any]], dict[str, Any]]


def with_room(contents: Mapping[str, str]) -> dict[str, str]:
    """The contents that a ledger has room for: unused ones first, because nothing else remembers them.

    Of the others, those that are left out are known again at the next look, as long as an object refers to them.
    """
    kept = sorted(contents, key=lambda content: (not contents[content], contents[content], content))
    while len(kept) > MOST_KEYS and (size := len(_packed({c: contents[c] for c in kept}))) > MOST_PACKED:
        kept = kept[: len(kept) * MOST_PACKED // size]
    return {content: contents[content] for content in sorted(kept)}


def ledger(
    namespace: str, contents: Mapping[str, str], stored: str | None = None, *, is_full: bool = False
) -> dict[str, Any]:
    """ConfigMap of the content, by hexadecimal digest or run. A value is empty, or the time of the last reference.

    It has no owner, because it outlives every object that it is about.

    Args:
        is_full: whether other contents are left out, see `with_room`.
    """
    metadata = {
        "name": names.CONTENTS,
        "namespace": namespace,
        "labels": {"app.kubernetes.io/managed-by": names.FIELD_MANAGER},
    }
    body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata}
    data = ({STORED: stored} if stored else {}) | ({FULL: FULL_WORDS} if is_full else {})
    if len(contents) <= MOST_KEYS:
        return {**body, "data": {**contents, **data}}
    return {**body, "data": data, "binaryData": {PACKED: _packed(contents)}}


def _packed(contents: Mapping[str, str]) -> str:
    text = "\n".join(f"{content} {since}" for content, since in sorted(contents.items()))
    return base64.b64encode(gzip.compress(text.encode(), mtime=0)).decode()


def recorded(body: Mapping[str, Any]) -> dict[str, str]:
    """The contents that a ledger has, whoever wrote them."""
    # An earlier operator kept the plan here.
    keys = {key: since for key, since in (body.get("data") or {}).items() if key not in (PLAN, STORED, FULL)}
    try:
        packed = base64.b64decode((body.get("binaryData") or {}).get(PACKED, ""))
        text = zlib.decompressobj(zlib.MAX_WBITS | 16).decompress(packed, MOST_BYTES).decode()
    except (ValueError, zlib.error):  # not ours
        text = ""
    # One by one: a text of a few KB may unpack to millions of lines.
    return keys | {entry[1]: entry[2] for entry in islice(_ENTRY.finditer(text), MOST_CONTENTS)}


@dataclass(frozen=True)
class SweepInputs:
    """What a Job is to remove, and what exists."""

    contents: Sequence[str] = ()
    """Hexadecimal digests without a reference."""
    datasets: Sequence[str] = ()
    """Names of all Datasets."""
    jobs: Sequence[str] | None = ()
    """uids of all existing runs; None: all others also stay."""
    checkpoints: Sequence[str] = ()
    """uids of the runs among them whose checkpoints are no longer needed."""
    models: Sequence[str] = ()
    """Models that are deleted with their ModelVersion, as <run>/<attempt>."""
    exports: Sequence[str] | None = None
    """What stays below models/, as in a SweepPlan; None: everything."""
    making: Sequence[str] | None = None
    """Names of the Jobs that may still make rows; None: keep what any Job left behind."""
    encoded: Sequence[str] = ()
    """Keys of encoded splits without a reference."""


def sweep_plan(wanted: SweepInputs, as_of: datetime, platform: Platform) -> SweepPlan:
    """The plan of the Job."""
    return SweepPlan(
        store=str(names.STORE),
        remove=[f"sha256:{content}" for content in wanted.contents],
        encoded=sorted(wanted.encoded),
        datasets=sorted(wanted.datasets),
        jobs=None if wanted.jobs is None else sorted(wanted.jobs),
        checkpoints=sorted(wanted.checkpoints),
        models=sorted(wanted.models),
        exports=None if wanted.exports is None else sorted(wanted.exports),
        making=None if wanted.making is None else sorted(wanted.making),
        as_of=as_of.timestamp(),
        grace_seconds=platform.store.keep_unused_seconds,
    )


def sweep(owner: Mapping[str, Any], plan: SweepPlan, platform: Platform) -> tuple[dict[str, Any], PlanOf]:
    """The Job, and a function that builds the ConfigMap of its plan once the Job exists; owner is the ledger.

    The Job owns the plan and takes it along when deleted: the operator deletes no ConfigMaps.
    """
    work = Work(component="sweep", verb="sweep", plan=plan, cpu=CPU, memory=MEMORY, mounts=(store(platform),))
    name = JobName(names.fit("hone-sweep", names.digest(plan.to_json())), names.labels("sweep", owner))
    config, body = job_with_plan(owner, name, work, platform)

    def plan_of(created: Mapping[str, Any]) -> dict[str, Any]:
        owned = names.metadata(config["metadata"]["name"], {**created, "kind": "Job"}, name.labels)
        return {**config, "metadata": owned}

    return body, plan_of
