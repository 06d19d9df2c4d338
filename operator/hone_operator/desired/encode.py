"""The Job that encodes the rows of a run as tokens before any GPU is requested; runs with equal rows share it."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from hone_api import GROUP, VERSION, encoding
from hone_api.plan import TrainingPlan
from hone_api.report import CA_ENV, TOKEN_ENV, URL_ENV
from hone_operator.desired import names
from hone_operator.desired.platform import Platform
from hone_operator.desired.pod import Work, writable
from hone_operator.desired.quantity import threads
from hone_operator.desired.shared import Shared, work_key
from hone_operator.desired.training import TOKEN_FOLDER, Attempt, inputs, progress_token, training_plan

COMPONENT = "encode"


def encode_plan(attempt: Attempt, platform: Platform) -> TrainingPlan:
    """The plan of the first attempt, with the folder that takes the encoded splits."""
    own = replace(attempt, resolved=attempt.resolved.model_copy(update={"encoded_rows": None}))
    return training_plan(own, platform).model_copy(update={"encoded_path": str(names.STORE / encoding.FOLDER)})


def encoded(keys: list[str], platform: Platform) -> Shared:
    """The work of encoding the splits that have these keys."""
    shaped_by = [platform.encoding_cpu, platform.encoding_memory]
    return Shared(COMPONENT, work_key(COMPONENT, [keys, shaped_by], platform), "rows", lasting=True)


def encode(
    claim: Mapping[str, Any], shared: Shared, attempt: Attempt, number: int, platform: Platform
) -> list[dict[str, Any]]:
    """Job and ConfigMap of attempt `number` at encoding."""
    work = Work(
        component=COMPONENT,
        verb="encode",
        plan=encode_plan(attempt, platform),
        cpu=platform.encoding_cpu,
        memory=platform.encoding_memory,
        mounts=(*writable(platform, encoding.FOLDER), *inputs(attempt, platform), *progress_token(platform)),
        env=_environment(attempt, shared.job_name(number), platform),
        pod={"activeDeadlineSeconds": platform.pod_limits.staging_seconds},
    )
    return shared.objects(claim, number, work, platform)


def _environment(attempt: Attempt, job: str, platform: Platform) -> dict[str, str]:
    env = {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": str(threads(platform.encoding_cpu, 1))}
    if platform.progress_url:
        namespace = attempt.owner["metadata"]["namespace"]
        env[URL_ENV] = f"{platform.progress_url}/apis/{GROUP}/{VERSION}/namespaces/{namespace}/encodings/{job}/status"
        env[TOKEN_ENV] = str(TOKEN_FOLDER / "token")
        env[CA_ENV] = str(names.PLAN_FOLDER / "ca.crt")
    return env
