"""The pods that check rows for the pod that materializes a Dataset: their Job, and how they reach that pod.

They have no volume except the plan and scratch space, and no credential: rows and what checks them come from the
leading pod, by the network. So the store may have any access mode.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from hone_api.dataset import DatasetSpec
from hone_api.plan import WorkerPods
from hone_operator.desired import names
from hone_operator.desired.job import JobName, job_with_plan, with_plan
from hone_operator.desired.platform import Platform
from hone_operator.desired.pod import Work

LEAD = "materialize"
COMPONENT = "materialize-workers"
PORT = 8786
RESTARTS = 6
"""Pods that may be lost for each one that is wanted; then the leading pod goes on with those that are left."""


def several(
    owner: Mapping[str, Any], spec: DatasetSpec, job: JobName, work: Work, platform: Platform
) -> list[dict[str, Any]]:
    """[ConfigMap, NetworkPolicy, Service, Job of the others, leading Job] for spec.resources.pods above 1.

    The leading Job is the last: while it is missing, all of them are created again.
    """
    meta, service = owner["metadata"], names.dataset_pods(owner["metadata"]["name"], owner["metadata"]["uid"])
    host = f"{job.name}-0.{service}.{meta['namespace']}.svc.{platform.cluster_domain}"
    pods = WorkerPods(pods=spec.resources.pods, host=host, port=PORT)
    work = replace(work, plan=work.plan.model_copy(update={"workers": pods}), pod={**work.pod, "subdomain": service})
    config, lead = job_with_plan(owner, job, work, platform)
    plan = config["metadata"]["name"]
    workers = _workers(owner, plan, job, work, spec.resources.pods - 1, platform)
    return [config, *_network(owner, service), workers, lead]


def _workers(
    owner: Mapping[str, Any], plan: str, lead: JobName, work: Work, pods: int, platform: Platform
) -> dict[str, Any]:
    """A pod that is lost is replaced: its part is done again by the others."""
    meta = owner["metadata"]
    own = Work(component=COMPONENT, verb="work", plan=work.plan, cpu=work.cpu, memory=work.memory, mounts=())
    name = names.fit(meta["name"], f"work-{lead.name.rpartition('-')[2]}", 52)
    job = JobName(name, {**lead.labels, names.COMPONENT: COMPONENT})
    body = with_plan(plan, owner, job, own, platform, pods)
    del body["spec"]["podFailurePolicy"]
    body["spec"]["backoffLimit"] = RESTARTS * pods
    return body


def _network(owner: Mapping[str, Any], name: str) -> list[dict[str, Any]]:
    """[NetworkPolicy, Service] of all attempts of a Dataset: the leading pod gets a name before it is ready, and only
    pods of the Dataset reach each other, since Dask's connections have no password."""
    labels = names.labels(LEAD, owner)
    dataset = {names.DATASET: labels[names.DATASET]}
    return [
        {
            "apiVersion": "networking.k8s.io/v1",
            "kind": "NetworkPolicy",
            "metadata": names.metadata(name, owner, labels),
            "spec": {
                "podSelector": {"matchLabels": {**dataset}},
                "policyTypes": ["Ingress"],
                "ingress": [{"from": [{"podSelector": {"matchLabels": {**dataset}}}]}],
            },
        },
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": names.metadata(name, owner, labels),
            "spec": {
                "clusterIP": "None",
                "publishNotReadyAddresses": True,
                "selector": {**dataset, names.COMPONENT: LEAD},
                "ports": [{"name": "scheduler", "port": PORT}],
            },
        },
    ]
