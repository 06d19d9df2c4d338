"""The run of a FineTuneJob in an experiment tracker: one for all attempts, found by the job's uid."""

from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any, NamedTuple

from hone_api.blocks.tracking import TRACKING_FOLDER, TrackedRun, TrackerType
from hone_api.kinds.finetunejob import FineTuneJobSpec
from hone_api.kinds.modelversion import Ancestor
from hone_api.kinds.resolved import Resolved
from hone_api.plan import TrackingInput
from hone_operator.desired.core import names
from hone_operator.desired.core.hub import secret_mounts
from hone_operator.desired.core.platform import Platform
from hone_operator.desired.core.pod import Mount

SECRET = PurePosixPath("/secrets/tracking")


class Experiment(NamedTuple):
    """An experiment of a tracker."""

    type: TrackerType
    uri: str
    name: str
    secret_name: str | None
    folder: str | None
    """Folder of the store; None: a server."""


def asked(spec: FineTuneJobSpec, platform: Platform) -> Experiment | None:
    """The experiment that a spec names; None: it is not tracked."""
    for tracker in spec.tracking or ():
        name = tracker.experiment or spec.output.model_name
        if tracker.type == "MLflow" and tracker.uri:
            return Experiment(tracker.type, tracker.uri, name, tracker.secret_name, None)
        if tracker.type != "MLflow":
            folder = f"{TRACKING_FOLDER}/{tracker.type.lower()}"
            return Experiment(tracker.type, f"pvc://{platform.store.claim_name}/{folder}", name, None, folder)
    return None


def key(spec: FineTuneJobSpec, platform: Platform) -> tuple[list[Mount], str | None]:
    """(mounts, path in the pod) of its credentials."""
    tracker = asked(spec, platform)
    return secret_mounts(tracker.secret_name if tracker else None, "tracking", SECRET)


def folders(spec: FineTuneJobSpec, platform: Platform) -> list[str]:
    """Folders of the store that the trainer writes for it."""
    tracker = asked(spec, platform)
    return [tracker.folder] if tracker and tracker.folder else []


def group(meta: Mapping[str, Any], ancestors: Sequence[Ancestor]) -> str | None:
    """What the run is part of: the sweep in its label, or the chain, named after the version that it began with."""
    sweep: str | None = (meta.get("labels") or {}).get(names.SWEEP)
    return sweep or next((stage.model_version for stage in ancestors), None)


def plan_input(
    meta: Mapping[str, Any],
    spec: FineTuneJobSpec,
    resolved: Resolved,
    image: str,
    ancestors: Sequence[Ancestor],
    platform: Platform,
) -> TrackingInput | None:
    """What the trainer needs to know of it."""
    tracker = asked(spec, platform)
    if tracker is None:
        return None
    part_of = group(meta, ancestors)
    used = {dataset.name for dataset in spec.datasets}
    digests = {f"hone.dataset.{n}": d for n, d in (resolved.dataset_digests or {}).items() if n in used}
    base = (spec.model.uri or "").partition("@")[0], resolved.model_commit if spec.model.uri else None
    tags = {
        "hone.namespace": meta["namespace"],
        "hone.job": meta["name"],
        "hone.model": spec.output.model_name,
        "hone.base": "@".join(filter(None, base)) or (resolved.model_version.name if resolved.model_version else ""),
        "hone.image": image,
        "hone.group": part_of,
        **digests,
    }
    return TrackingInput(
        type=tracker.type,
        uri=tracker.uri,
        path=str(names.STORE / tracker.folder) if tracker.folder else None,
        group=part_of,
        parent=next((stage.job.uid for stage in ancestors if stage.job), None),
        experiment=tracker.name,
        secret_path=key(spec, platform)[1],
        uid=meta["uid"],
        tags={name: value for name, value in tags.items() if value},
    )


def tracked_run(spec: FineTuneJobSpec, run_id: str | None, platform: Platform) -> TrackedRun | None:
    """The run that the trainer reports; None: it has reported none."""
    tracker = asked(spec, platform)
    if tracker is None or run_id is None:
        return None
    return TrackedRun(uri=tracker.uri, experiment=tracker.name, run_id=run_id)
