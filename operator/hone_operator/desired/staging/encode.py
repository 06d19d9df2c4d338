"""The Job that encodes the rows of a run as tokens before any GPU is requested; runs with equal rows share it."""

from collections.abc import Mapping
from typing import Any

from hone_api.base.quantity import value
from hone_api.blocks.training import Training
from hone_api.contract import encoding
from hone_api.kinds.finetunejob import Output
from hone_api.methods import METHODS
from hone_api.plan import TrainingPlan
from hone_operator.desired.core import names
from hone_operator.desired.core.platform import Platform
from hone_operator.desired.core.pod import Work, writable_folders
from hone_operator.desired.core.quantity import threads
from hone_operator.desired.core.reports import progress_environment, progress_token
from hone_operator.desired.core.shared import Shared, work_key
from hone_operator.desired.run.attempt import AttemptInputs
from hone_operator.desired.run.training import inputs, pull_secrets, training_plan

COMPONENT = "encode"


def encode_plan(attempt: AttemptInputs, platform: Platform) -> TrainingPlan:
    """A plan of what the tokens depend on, without anything else of the run: two runs that need the same tokens at the
    same moment create the same Job."""
    run = training_plan(attempt, platform)
    folder = str(names.STORE / encoding.FOLDER)
    return TrainingPlan(
        run=COMPONENT,
        method=run.method,
        model_path=run.model_path,
        model_uri=run.model_uri,
        model_commit=run.model_commit,
        model_digest=run.model_digest,
        model_trusted=run.model_trusted,
        model_adapter=run.model_adapter,
        template_date=run.template_date,
        datasets=[source.model_copy(update={"share": None}) for source in run.datasets],
        evaluation_datasets=run.evaluation_datasets,
        encoded_path=folder,
        output=Output(model_name=COMPONENT),
        work_path=folder,
        output_path=folder,
        **_options(run),
    )


def _options(run: TrainingPlan) -> dict[str, Any]:
    """Of training and of the method's block what tokens depend on; all of it where the rest must fit together."""
    info = METHODS[run.method]
    if info.encodes == "Prompts" or run.distillation:
        return {"training": run.training, info.block: getattr(run, info.block)}
    read = {"max_length", "truncation", "thinking", "rope_scaling"}
    training = Training(**run.training.model_dump(include=read))
    return {"training": training, "sft": type(run.sft)(train_on=run.sft.train_on)}


def pods_for(size: int, platform: Platform) -> int:
    """Pods that encode Datasets of so many bytes; they need a store that several nodes can mount."""
    if platform.store.access_mode != "ReadWriteMany":
        return 1
    return max(1, min(platform.encoding.pods, -(-size // int(value(platform.encoding.pod_size)))))


def encoded(plan: TrainingPlan, platform: Platform, pods: int = 1, pull_secrets: tuple[str, ...] = ()) -> Shared:
    """The work of encoding the splits of this plan, which is from `encode_plan`."""
    what = [plan.to_json(), platform.encoding.cpu, platform.encoding.memory, *([pods] if pods > 1 else [])]
    what += pull_secrets
    return Shared(COMPONENT, work_key(COMPONENT, what, platform), "rows", lasting=True)


def encode(
    claim: Mapping[str, Any], shared: Shared, attempt: AttemptInputs, number: int, platform: Platform, pods: int = 1
) -> list[dict[str, Any]]:
    """Job and ConfigMap of attempt `number` at encoding."""
    return shared.objects(claim, number, _work(shared, attempt, number, platform, pods), platform)


def _work(shared: Shared, attempt: AttemptInputs, number: int, platform: Platform, pods: int) -> Work:
    plan = encode_plan(attempt, platform)
    return Work(
        component=COMPONENT,
        verb="encode",
        plan=plan.model_copy(update={"pods": pods}) if pods > 1 else plan,
        cpu=platform.encoding.cpu,
        memory=platform.encoding.memory,
        mounts=(*writable_folders(platform, encoding.FOLDER), *inputs(attempt, platform), *progress_token(platform)),
        env=_environment(attempt, shared.job_name(number), platform),
        pod={"activeDeadlineSeconds": platform.pod_limits.staging_seconds},
        pods=pods,
        pull_secrets=pull_secrets(attempt.spec),
    )


def _environment(attempt: AttemptInputs, job: str, platform: Platform) -> dict[str, str]:
    env = {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": str(threads(platform.encoding.cpu, 1))}
    return env | progress_environment(platform, attempt.owner["metadata"]["namespace"], "encodings", job)
