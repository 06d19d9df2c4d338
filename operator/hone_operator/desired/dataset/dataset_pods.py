"""The pods that check rows for the pod that materializes a Dataset."""

from collections.abc import Mapping
from typing import Any

from hone_api.dataset.dataset import DatasetSpec
from hone_operator.desired.core import names
from hone_operator.desired.core.job import JobName, job_with_plan
from hone_operator.desired.core.platform import Platform
from hone_operator.desired.core.pod import Work
from hone_operator.desired.dataset import worker_pods

LEAD = "materialize"
COMPONENT = "materialize-workers"


def several(
    owner: Mapping[str, Any], spec: DatasetSpec, job: JobName, work: Work, platform: Platform
) -> list[dict[str, Any]]:
    """[ConfigMap, NetworkPolicy, Service, Job of the others, leading Job] for spec.resources.pods above 1.

    The leading Job is the last: while it is missing, all of them are created again.
    """
    meta, pods = owner["metadata"], spec.resources.pods
    service = names.dataset_pods(meta["name"], meta["uid"])
    work = worker_pods.leading(work, job.name, service, meta["namespace"], pods, platform)
    config, lead = job_with_plan(owner, job, work, platform)
    own = names.fit(meta["name"], f"work-{job.name.rpartition('-')[2]}", 52)
    labelled = JobName(own, {**job.labels, names.COMPONENT: COMPONENT})
    workers = worker_pods.others(owner, labelled, config["metadata"]["name"], work, pods, platform)
    # Those of all attempts of a Dataset.
    labels = names.labels(LEAD, owner)
    dataset = {names.DATASET: labels[names.DATASET]}
    network = worker_pods.network(names.metadata(service, owner, labels), dataset, LEAD)
    return [config, *network, workers, lead]
