"""One attempt of a FineTuneJob: ConfigMap with the plan, headless Service, Indexed Job."""

import json
from dataclasses import replace
from pathlib import PurePosixPath
from typing import Any

from hone_api.base.schemes import image_of
from hone_api.contract import encoding
from hone_api.estimate import job_needs
from hone_api.kinds.finetunejob import FineTuneJobSpec
from hone_api.kinds.resolved import PinnedModel, Resolved
from hone_api.plan import DatasetInput, TasksInput, TrainingPlan
from hone_api.plan.fields import Destinations
from hone_operator.desired.core import interconnect, modelref, names
from hone_operator.desired.core.hub import secret_mounts
from hone_operator.desired.core.job import JobName, job_with_plan
from hone_operator.desired.core.platform import Platform
from hone_operator.desired.core.pod import METRICS_PORT, TRAINING, Mount, Work, read_only_folders, writable_folders
from hone_operator.desired.core.quantity import threads
from hone_operator.desired.core.queue import queue_of, queued
from hone_operator.desired.core.reports import progress_environment, progress_token
from hone_operator.desired.run import rewards, tracking
from hone_operator.desired.run.attempt import AttemptInputs, attempt_labels, image
from hone_operator.desired.run.rank_network import network
from hone_operator.desired.run.scheduling import extended_gpus, scheduling
from hone_operator.times import duration_seconds, read_time

MODEL = PurePosixPath("/model")
TEACHER_SECRET = PurePosixPath("/secrets/teacher")
GENERATION_SECRET = PurePosixPath("/secrets/generation")


def training_plan(attempt: AttemptInputs, platform: Platform) -> TrainingPlan:
    """The attempt, fully resolved. All attempts find the checkpoints by the job's uid; each exports to its own
    folder."""
    meta, spec, resolved = attempt.owner["metadata"], attempt.spec, attempt.resolved
    uid = meta["uid"]
    several = attempt.nodes > 1
    host = f"{attempt.name}-0.{attempt.name}.{meta['namespace']}.svc.{platform.cluster_domain}"
    return TrainingPlan(
        run=meta["name"],
        attempt=attempt.number,
        method=spec.method,
        **_options(spec),
        **_model(spec, resolved, platform),
        **_other_models(spec, resolved, platform),
        **_rows(spec, resolved),
        reward_paths=rewards.paths(spec),
        teacher_secret_path=_teacher_key(spec)[1],
        generation_secret_path=_generation_key(spec)[1],
        adapter=spec.adapter,
        training=spec.training,
        early_stopping=spec.early_stopping,
        checkpoints=spec.checkpoints,
        evaluation=spec.evaluation,
        deepspeed=spec.deepspeed,
        nodes=attempt.nodes,
        max_nodes=spec.resources.nodes if spec.resources.min_nodes else None,
        processes_per_node=job_needs.processes_per_node(spec),
        memory=job_needs.smallest(spec),
        template_date=created.date() if (created := read_time(meta.get("creationTimestamp"))) else None,
        master_address=host if several else None,
        cluster_domain=platform.cluster_domain,
        namespace=meta["namespace"],
        **platform.limits.model_dump(include=set(Destinations.model_fields)),
        # What happens to the finished model is the ModelVersion's: its Jobs copy it, a sweep removes it.
        output=spec.output.model_copy(update={"push": None, "deletion_policy": None}),
        work_path=str(names.STORE / "runs" / uid),
        output_path=str(names.STORE / "models" / uid),
        export_folder=f"attempt-{attempt.number}",
        micro_batch_limit=attempt.micro_batch_limit,
        learning_rate_halvings=attempt.learning_rate_halvings,
        failure_interval=attempt.failure_interval if spec.checkpoints.cadence == "Auto" else None,
        hang_timeout=_hang_timeout(spec),
        metrics_port=METRICS_PORT,
        tracking=tracking.plan_input(meta, spec, resolved, image(spec, platform), attempt.ancestors, platform),
    )


def _other_models(spec: FineTuneJobSpec, resolved: Resolved, platform: Platform) -> dict[str, Any]:
    """Fields of the plan about the ModelVersions that the spec names, and the one to compare with."""
    named, versions = modelref.references(spec.to_json()), resolved.model_versions or ()
    return {
        "models": {m.name: modelref.model_input(m, platform) for m in versions if m.name in named},
        "compared_model": next(
            (modelref.model_input(m, platform) for m in versions if m.name == resolved.compared_with), None
        ),
        "compared_with": resolved.compared_with,
    }


def _rows(spec: FineTuneJobSpec, resolved: Resolved) -> dict[str, Any]:
    """Fields of the plan about rows: to train on, encoded before, and to evaluate on."""
    encoded = resolved.encoded_rows
    return {
        "datasets": [_input(f"{d.name}/{d.split}", resolved, d.share) for d in spec.datasets],
        "evaluation_datasets": [_input(name, resolved) for name in resolved.evaluation_datasets or ()],
        "encoded_path": str(names.STORE / encoding.FOLDER) if encoded else None,
        "encoded_digest": encoded.digest if encoded else None,
        "retention_datasets": _retention(spec, resolved),
        "harness_tasks": _harness(resolved),
    }


def _hang_timeout(spec: FineTuneJobSpec) -> int | None:
    asked = spec.restarts.hang_timeout
    return max(1, int(duration_seconds(asked))) if asked else None


def _options(spec: FineTuneJobSpec) -> dict[str, Any]:
    """The block of the method, if the spec has it."""
    block = spec.method.lower()
    options = getattr(spec, block)
    return {block: options} if options else {}


def _teacher_key(spec: FineTuneJobSpec) -> tuple[list[Mount], str | None]:
    """(mounts, path in the pod) of the key of a teacher behind an API."""
    endpoint = spec.distillation.teacher_endpoint if spec.distillation else None
    return secret_mounts(endpoint.secret_name if endpoint else None, "teacher", TEACHER_SECRET)


def _generation_key(spec: FineTuneJobSpec) -> tuple[list[Mount], str | None]:
    """The same for a server that generates samples."""
    return secret_mounts(spec.grpo.generation.secret_name if spec.grpo else None, "generation", GENERATION_SECRET)


def _retention(spec: FineTuneJobSpec, resolved: Resolved) -> list[DatasetInput]:
    retention = spec.evaluation.retention
    return [_input(f"{d.name}/{d.split}", resolved) for d in retention.datasets] if retention else []


def _harness(resolved: Resolved) -> TasksInput | None:
    staged = resolved.evaluation_tasks
    if staged is None:
        return None
    path = names.STORE / names.split_uri(staged.uri)[2]
    return TasksInput(path=str(path), digest=staged.digest, version=staged.version, data_sets=staged.data_sets)


def _input(rows: str, resolved: Resolved, share: str | None = None) -> DatasetInput:
    """`rows` is <Dataset>/<split>."""
    name, _, split = rows.partition("/")
    digest = (resolved.dataset_digests or {})[name]
    folder = names.STORE / "datasets" / digest.removeprefix("sha256:")
    return DatasetInput(name=name, split=split, path=str(folder / f"{split}.jsonl"), digest=digest, share=share)


def _model(spec: FineTuneJobSpec, resolved: Resolved, platform: Platform) -> dict[str, Any]:
    """Fields of the plan about the base model and its location."""
    if (version := resolved.model_version) is None:
        return {
            "model_path": str(_model_path(spec, resolved, platform)),
            "model_uri": spec.model.uri or "",
            "model_commit": resolved.model_commit,
            "model_license": resolved.model_license,
            "model_digest": resolved.model_digest,
        }
    return {
        "model_path": str(modelref.Place.of(version.uri, platform).path),
        "model_uri": version.adapter_uri or version.uri,
        "model_commit": resolved.model_commit,
        "model_license": resolved.model_license,
        "model_digest": version.digest,
        "model_version": version.name,
        "model_trusted": modelref.trusted_signers(version, platform),
        "model_adapter": modelref.adapter_input(version, platform),
    }


def _model_path(spec: FineTuneJobSpec, resolved: Resolved, platform: Platform) -> PurePosixPath:
    """Folder of the base model in the pod: in the store if it was fetched, else on the user's own volume or in an
    image."""
    scheme, _, path = names.split_uri(spec.model.uri or "")
    if scheme == "pvc":
        return MODEL / path
    if scheme == "oci":
        return modelref.Place.of(spec.model.uri or "", platform).path
    return names.STORE / names.split_uri(resolved.model_uri or "")[2]


def mounts(attempt: AttemptInputs, platform: Platform) -> tuple[Mount, ...]:
    """Store, volumes with models, shared memory, and the token for progress reports."""
    spec, resolved = attempt.spec, attempt.resolved
    size = spec.resources.shared_memory or ("8Gi" if spec.resources.gpus_per_node > 1 else "1Gi")
    versions = [*([resolved.model_version] if resolved.model_version else []), *(resolved.model_versions or ())]
    out = [
        *_store_mounts(attempt, versions, platform),
        Mount.scratch("shm", PurePosixPath("/dev/shm"), size, medium="Memory"),
        *_volumes(attempt, versions, platform),
    ]
    out += [*rewards.mounts(spec), *_teacher_key(spec)[0], *_generation_key(spec)[0]]
    out += [*tracking.key(spec, platform)[0], *progress_token(platform)]
    return tuple(out)


def inputs(attempt: AttemptInputs, platform: Platform) -> tuple[Mount, ...]:
    """Rows and base model of the run, to read."""
    base = attempt.resolved.model_version
    versions = [base] if base else []
    rows_and_base = read_only_folders(
        platform, "datasets", *modelref.store_folders(versions, platform), *_base_model_folder(attempt, platform)
    )
    return (*rows_and_base, *_volumes(attempt, versions, platform))


def _volumes(attempt: AttemptInputs, versions: list[PinnedModel], platform: Platform) -> list[Mount]:
    """Volumes and images, besides the store, with the base model and these versions."""
    uri = attempt.spec.model.uri or ""
    return [*_own_volume(uri, platform), *modelref.places(versions, platform, [uri] if image_of(uri) else [])]


def _store_mounts(attempt: AttemptInputs, versions: list[PinnedModel], platform: Platform) -> tuple[Mount, ...]:
    """Mounts of the store: the folders of the run and its tracker writable; what else the plan names read-only."""
    uid, resolved = attempt.owner["metadata"]["uid"], attempt.resolved
    read = ["datasets", *modelref.store_folders(versions, platform), *_base_model_folder(attempt, platform)]
    if resolved.evaluation_tasks:
        read.append("evaluation-tasks")
    if resolved.encoded_rows:
        read.append(encoding.FOLDER)
    written = [f"runs/{uid}", f"models/{uid}", *tracking.folders(attempt.spec, platform)]
    return (*writable_folders(platform, *written), *read_only_folders(platform, *read))


def _base_model_folder(attempt: AttemptInputs, platform: Platform) -> list[str]:
    """Folder of the store that has the base model, where it was fetched."""
    uri = attempt.resolved.model_uri or ""
    fetched = uri.startswith(f"pvc://{platform.store.claim_name}/base-models/")
    return [modelref.folder(uri)] if fetched and attempt.resolved.model_version is None else []


def pull_secrets(spec: FineTuneJobSpec) -> tuple[str, ...]:
    """Secrets with which the kubelet pulls the image of the base model."""
    is_image = image_of(spec.model.uri or "") is not None
    return (spec.model.secret_name,) if is_image and spec.model.secret_name else ()


def _own_volume(uri: str, platform: Platform) -> list[Mount]:
    """The user's volume with the base model; from the store, only the model's folder."""
    scheme, claim, _ = names.split_uri(uri)
    if scheme != "pvc":
        return []
    volume = Mount.claim("model", MODEL, claim)
    part = modelref.folder(uri) if claim == platform.store.claim_name and platform.store.isolate_runs else ""
    return [replace(volume, path=MODEL / part, sub_path=part or None)]


def environment(attempt: AttemptInputs, platform: Platform) -> dict[str, str]:
    """The trainer needs the network only for its ranks, the progress server, and servers that the spec names."""
    spec, meta = attempt.spec, attempt.owner["metadata"]
    env = {
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": str(threads(spec.resources.cpu, job_needs.processes_per_node(spec))),
        # torchrun's agent would kill its workers 30 s after SIGTERM, in the middle of a checkpoint.
        "TORCH_ELASTIC_SHUTDOWN_TIMEOUT": str(max(1, platform.trainer.termination_grace_seconds - 10)),
    }
    if attempt.nodes > 1 and platform.trainer.network_interface:
        env["GLOO_SOCKET_IFNAME"] = platform.trainer.network_interface
        env["NCCL_SOCKET_IFNAME"] = f"={platform.trainer.network_interface}"
    env |= interconnect.environment(spec.resources.network, platform.trainer.networks.by_name)
    return env | progress_environment(platform, meta["namespace"], "finetunejobs", meta["name"])


def training(attempt: AttemptInputs, platform: Platform) -> list[dict[str, Any]]:
    """[ConfigMap, NetworkPolicy and Service if there are several nodes, Job] of the attempt."""
    spec = attempt.spec
    resources = spec.resources
    rdma = interconnect.rdma(resources.network, platform.trainer.networks.by_name)
    labels = attempt_labels(attempt.owner, attempt.number)
    work = Work(
        component=TRAINING,
        verb="run",
        plan=training_plan(attempt, platform),
        cpu=resources.cpu,
        memory=resources.memory,
        mounts=mounts(attempt, platform),
        env=environment(attempt, platform),
        limits={**extended_gpus(spec), **rdma.resources},
        claims=tuple(claim.name for claim in resources.claims or ()),
        annotations=rdma.annotations,
        ports={"metrics": METRICS_PORT},
        pod={
            "terminationGracePeriodSeconds": platform.trainer.termination_grace_seconds,
            "activeDeadlineSeconds": platform.pod_limits.training_seconds,
            **({"subdomain": attempt.name} if attempt.nodes > 1 else {}),
            **scheduling(spec, attempt.avoided_nodes),
        },
        image=image(spec, platform),
        settings=spec.pod,
        pull_secrets=pull_secrets(spec),
    )
    annotations = {names.RESOLVED: json.dumps(attempt.resolved.to_json(), sort_keys=True)}
    if attempt.ancestors:
        annotations[names.ANCESTORS] = json.dumps([a.to_json() for a in attempt.ancestors], sort_keys=True)
    config, body = job_with_plan(
        attempt.owner, JobName(attempt.name, labels, annotations), work, platform, attempt.nodes
    )
    if queue := queue_of(spec.scheduling, platform):
        body = queued(body, queue, spec.scheduling)
    return [config, *(network(attempt.owner, attempt.number, platform) if attempt.nodes > 1 else []), body]
