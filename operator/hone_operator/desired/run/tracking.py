"""The MLflow run of a FineTuneJob: one for all attempts, found by the job's uid."""

from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any, NamedTuple

from hone_api.blocks.tracking import TrackedRun
from hone_api.kinds.finetunejob import FineTuneJobSpec
from hone_api.kinds.resolved import Resolved
from hone_api.plan import TrackingInput
from hone_operator.desired.core.hub import secret_mounts
from hone_operator.desired.core.pod import Mount

SECRET = PurePosixPath("/secrets/tracking")


class Experiment(NamedTuple):
    """An experiment on an MLflow server."""

    uri: str
    name: str
    secret_name: str | None


def asked(spec: FineTuneJobSpec) -> Experiment | None:
    """The experiment that a spec names; None: it is not tracked."""
    for server in spec.tracking or ():
        if server.type == "MLflow" and server.uri:
            return Experiment(server.uri, server.experiment or spec.output.model_name, server.secret_name)
    return None


def key(spec: FineTuneJobSpec) -> tuple[list[Mount], str | None]:
    """(mounts, path in the pod) of its credentials."""
    server = asked(spec)
    return secret_mounts(server.secret_name if server else None, "tracking", SECRET)


def plan_input(meta: Mapping[str, Any], spec: FineTuneJobSpec, resolved: Resolved, image: str) -> TrackingInput | None:
    """What the trainer needs to know of it."""
    server = asked(spec)
    if server is None:
        return None
    used = {dataset.name for dataset in spec.datasets}
    digests = {f"hone.dataset.{n}": d for n, d in (resolved.dataset_digests or {}).items() if n in used}
    base = (spec.model.uri or "").partition("@")[0], resolved.model_commit if spec.model.uri else None
    tags = {
        "hone.namespace": meta["namespace"],
        "hone.job": meta["name"],
        "hone.model": spec.output.model_name,
        "hone.base": "@".join(filter(None, base)) or (resolved.model_version.name if resolved.model_version else ""),
        "hone.image": image,
        **digests,
    }
    return TrackingInput(
        uri=server.uri,
        experiment=server.name,
        secret_path=key(spec)[1],
        uid=meta["uid"],
        tags={name: value for name, value in tags.items() if value},
    )


def tracked_run(spec: FineTuneJobSpec, run_id: str | None) -> TrackedRun | None:
    """The run that the trainer reports; None: it has reported none."""
    server = asked(spec)
    if server is None or run_id is None:
        return None
    return TrackedRun(uri=server.uri, experiment=server.name, run_id=run_id)
