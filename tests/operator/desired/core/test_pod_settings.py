"""What platform and job set on pods, and which of them wins."""

from __future__ import annotations

from typing import Any

import pytest
from support.cluster import desired_objects
from support.cluster.desired_objects import CASES, PLATFORM, run
from support.cluster.platforms import changed

from hone_api.blocks.placement import Toleration
from hone_operator.settings.pods import PodsSettings
from hone_operator.writing.adopt import difference

pytestmark = pytest.mark.pure
TOLERATED = {"key": "pool", "operator": "Exists"}
DEFAULTS = PodsSettings(
    labels={"mesh": "off", "cost": "platform"},
    annotations={"sidecar.istio.io/inject": "false"},
    node_selector={"pool": "train", "zone": "a"},
    tolerations=[Toleration.model_validate(TOLERATED)],
    service_account_name="trainer",
)


def job_of(spec: dict[str, Any], **platform: Any) -> dict[str, Any]:
    return next(body for body in run(spec, platform=changed(PLATFORM, **platform)) if body["kind"] == "Job")


def template_of(spec: dict[str, Any], **platform: Any) -> Any:
    return job_of(spec, **platform)["spec"]["template"]


def variables(template: Any) -> dict[str, Any]:
    return {each["name"]: each for each in template["spec"]["containers"][0]["env"]}


def test_a_job_wins_over_the_platform_and_hone_over_both() -> None:
    asked = {
        "labels": {"cost": "research"},
        "annotations": {"k8s.v1.cni.cncf.io/networks": "rdma"},
        "env": [{"name": "HTTPS_PROXY", "value": "http://other"}, {"name": "NCCL_DEBUG", "value": "$(X)"}],
        "serviceAccountName": "own",
        "runtimeClassName": "kata",
    }
    scheduling = {"nodeSelector": {"pool": "fast"}, "tolerations": [{"key": "gpu", "operator": "Exists"}, TOLERATED]}
    platform = {"trainer__pods": DEFAULTS, "trainer__runtime_class_name": "gvisor"}
    found = template_of({"pod": asked, "scheduling": scheduling}, **platform)
    assert {"mesh": "off", "cost": "research", "hone.dev/component": "training"}.items() <= (
        found["metadata"]["labels"].items()
    )
    assert found["metadata"]["annotations"] == {**DEFAULTS.annotations, **asked["annotations"]}
    spec = found["spec"]
    assert spec["nodeSelector"] == {"pool": "fast", "zone": "a"}
    assert spec["tolerations"] == scheduling["tolerations"]
    assert (spec["serviceAccountName"], spec["runtimeClassName"]) == ("own", "kata")
    assert spec["automountServiceAccountToken"] is False
    env = variables(found)
    assert (env["HTTPS_PROXY"]["value"], env["NCCL_DEBUG"]["value"]) == ("http://other", "$$(X)")


def test_the_platform_decides_where_a_job_says_nothing() -> None:
    found = template_of({}, trainer__pods=DEFAULTS, pod_security__fixed_user=False)
    assert found["metadata"]["labels"]["cost"] == "platform"
    spec = found["spec"]
    assert (spec["nodeSelector"], spec["tolerations"]) == (DEFAULTS.node_selector, [TOLERATED])
    assert spec["serviceAccountName"] == "trainer"
    assert spec["securityContext"] == {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}


def test_a_key_of_a_secret_replaces_a_value_of_the_platform() -> None:
    asked = {"env": [{"name": "HTTPS_PROXY", "secretName": "hone-proxy", "key": "url"}]}
    env = variables(template_of({"pod": asked}))
    assert env["HTTPS_PROXY"] == {
        "name": "HTTPS_PROXY",
        "valueFrom": {"secretKeyRef": {"name": "hone-proxy", "key": "url"}},
    }
    assert env["HONE_SECRET_VARIABLES"]["value"] == "HTTPS_PROXY"


def test_volumes_are_read_only_except_scratch() -> None:
    asked = [
        {"mountPath": "/mnt/claim", "claimName": "shared"},
        {"mountPath": "/mnt/map", "configMapName": "files"},
        {"mountPath": "/mnt/secret", "secretName": "hone-ca"},
        {"mountPath": "/mnt/scratch", "scratch": {"size": "5Gi", "medium": "Memory"}},
    ]
    spec = template_of({"pod": {"volumes": asked}})["spec"]
    mounted = {each["mountPath"]: each for each in spec["containers"][0]["volumeMounts"]}
    assert [mounted[each["mountPath"]].get("readOnly", False) for each in asked] == [True, True, True, False]
    sources = {each["name"]: each for each in spec["volumes"]}
    assert sources["extra-0"]["persistentVolumeClaim"] == {"claimName": "shared", "readOnly": True}
    assert sources["extra-1"]["configMap"]["name"] == "files"
    assert sources["extra-2"]["secret"] == {"secretName": "hone-ca", "defaultMode": 0o440}
    assert sources["extra-3"]["emptyDir"] == {"sizeLimit": "5Gi", "medium": "Memory"}


def test_every_other_pod_has_what_the_platform_says(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a cluster whose nodes all have taints, a Job that forgets them finds no node."""
    platform = changed(PLATFORM, staging__pods=DEFAULTS, staging__queue_name="staging")
    monkeypatch.setattr(desired_objects, "PLATFORM", platform)
    made = [body for case, make in CASES.items() if not case.startswith("training") for body in make()]
    jobs = [body for body in made if body["kind"] == "Job"]
    assert len({body["metadata"]["labels"]["hone.dev/component"] for body in jobs}) >= 6
    for body in jobs:
        template = body["spec"]["template"]
        assert template["spec"]["tolerations"] == [TOLERATED]
        assert template["spec"]["nodeSelector"] == DEFAULTS.node_selector
        assert template["metadata"]["labels"]["mesh"] == "off"
        component = body["metadata"]["labels"]["hone.dev/component"]
        queue = body["metadata"]["labels"].get("kueue.x-k8s.io/queue-name")
        assert (queue, body["spec"].get("suspend", False)) == (
            (None, False) if component == "sweep" else ("staging", True)
        ), component


def test_a_job_with_a_service_account_is_taken_for_ours() -> None:
    """The API server also sets the field's old name."""
    wanted = job_of({}, trainer__pods=DEFAULTS)
    assert difference(wanted, wanted) is None
    foreign = job_of({}, trainer__pods=DEFAULTS.model_copy(update={"service_account_name": "admin"}))
    assert difference(foreign, wanted) == "spec.template.spec.serviceAccountName"


def test_what_kueue_reads_is_on_the_job() -> None:
    scheduling = {"queueName": "team", "workloadPriorityClass": "high", "managedBy": "MultiKueue"}
    job = job_of({"scheduling": scheduling}, kueue__enabled=True)
    assert job["metadata"]["labels"]["kueue.x-k8s.io/priority-class"] == "high"
    assert job["spec"]["managedBy"] == "kueue.x-k8s.io/multikueue"
    without = job_of({"scheduling": scheduling})
    assert "managedBy" not in without["spec"]
    assert not [name for name in without["metadata"]["labels"] if name.startswith("kueue.")]


CLAIMED = {"gpusPerNode": 2, "gpusFrom": "Claims", "claims": [{"name": "g", "resourceClaimTemplateName": "two"}]}


def test_claims_have_the_gpus_and_the_node_is_not_asked_for_more() -> None:
    job = job_of({"resources": CLAIMED})
    spec = job["spec"]["template"]["spec"]
    assert spec["resourceClaims"] == CLAIMED["claims"]
    assert "tolerations" not in spec
    resources = spec["containers"][0]["resources"]
    assert resources["claims"] == [{"name": "g"}]
    assert not {"nvidia.com/gpu"} & (resources["limits"].keys() | resources["requests"].keys())
    assert '"processesPerNode": 2' in run({"resources": CLAIMED})[0]["data"]["plan.json"]


def test_other_claims_come_next_to_the_gpus_of_the_node() -> None:
    spec = template_of({"resources": {**CLAIMED, "gpusFrom": "ExtendedResource"}})["spec"]
    assert spec["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == "2"
    assert spec["resourceClaims"] == CLAIMED["claims"]


@pytest.mark.parametrize(
    ("network", "transport", "devices"),
    [(None, None, {}), ("TCP", "Socket", {}), ("RoCE", "IB", desired_objects.RDMA.resources)],
)
def test_nccl_may_use_only_the_network_that_the_job_names(network: Any, transport: Any, devices: Any) -> None:
    asked = {"resources": {"nodes": 2, **({"network": network} if network else {})}}
    found = template_of(asked, trainer__networks=desired_objects.NETWORKS)
    env = variables(found)
    assert env.get("NCCL_NET", {}).get("value") == transport
    assert ("NCCL_IB_HCA" in env) is bool(devices)
    limits = found["spec"]["containers"][0]["resources"]["limits"]
    assert {name: count for name, count in limits.items() if name.startswith("rdma/")} == devices
    assert found["metadata"].get("annotations", {}) == (dict(desired_objects.RDMA.annotations) if devices else {})


@pytest.mark.parametrize("case", ["fetch", "materialize-hub", "deliver-image", "lookup"])
def test_all_pods_trust_the_authorities_of_the_platform(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    platform = changed(PLATFORM, ca_bundle__config_map_name="company-ca", ca_bundle__key="root.pem")
    monkeypatch.setattr(desired_objects, "PLATFORM", platform)
    job = next(body for body in CASES[case]() if body["kind"] == "Job")
    (volume,) = [v for v in job["spec"]["template"]["spec"]["volumes"] if v["name"] == "authorities"]
    assert volume["configMap"]["name"] == "company-ca"
    assert volume["configMap"]["items"] == [{"key": "root.pem", "path": "ca-bundle.crt"}]
    for container in desired_objects.all_containers(job):
        (mount,) = [m for m in container["volumeMounts"] if m["name"] == "authorities"]
        assert (mount["mountPath"], mount["readOnly"]) == ("/etc/hone-ca", True)
        env = {each["name"]: each["value"] for each in container["env"] if "value" in each}
        assert env["SSL_CERT_FILE"] == env["REQUESTS_CA_BUNDLE"] == "/etc/hone-ca/ca-bundle.crt"


def test_a_job_may_trust_others() -> None:
    own = {"env": [{"name": "SSL_CERT_FILE", "value": "/mnt/ca/team.pem"}]}
    template = template_of({"pod": own}, ca_bundle__config_map_name="company-ca")
    assert "authorities" in {volume["name"] for volume in template["spec"]["volumes"]}
    values = {name: each.get("value") for name, each in variables(template).items()}
    assert (values["SSL_CERT_FILE"], values["REQUESTS_CA_BUNDLE"]) == ("/mnt/ca/team.pem", "/etc/hone-ca/ca-bundle.crt")


def test_a_variable_from_a_secret_is_there_once() -> None:
    own = {"env": [{"name": "SSL_CERT_FILE", "secretName": "team", "key": "path"}]}
    template = template_of({"pod": own}, ca_bundle__config_map_name="company-ca")
    for container in template["spec"]["containers"]:
        sources = [each.get("valueFrom") for each in container["env"] if each["name"] == "SSL_CERT_FILE"]
        assert sources == [{"secretKeyRef": {"name": "team", "key": "path"}}]


@pytest.mark.parametrize("name", ["NCCL_NET", "NCCL_IB_HCA"])
def test_a_variable_from_a_secret_does_not_replace_what_hone_sets(name: str) -> None:
    """The kubelet takes the last of two variables with one name."""
    asked = [{"name": each, "secretName": "hone-nccl", "key": "k"} for each in (name, "NCCL_DEBUG")]
    spec = {"resources": {"nodes": 2, "network": "RoCE"}, "pod": {"env": asked}}
    for container in template_of(spec, trainer__networks=desired_objects.NETWORKS)["spec"]["containers"]:
        (ours,) = [each for each in container["env"] if each["name"] == name]
        assert ours.keys() == {"name", "value"}
        secrets = {each["name"]: each.get("value") for each in container["env"]}["HONE_SECRET_VARIABLES"]
        assert secrets == "NCCL_DEBUG"


def test_many_variables_are_each_there_once() -> None:
    names = ["NCCL_NET", "SSL_CERT_FILE", "HTTPS_PROXY", *(f"X{number}" for number in range(29))]
    asked = [{"name": name, "secretName": "hone-a", "key": "k"} for name in names]
    spec = {"resources": {"nodes": 2, "network": "RoCE"}, "pod": {"env": asked}}
    template = template_of(spec, trainer__networks=desired_objects.NETWORKS, ca_bundle__config_map_name="company-ca")
    env = [each["name"] for each in template["spec"]["containers"][0]["env"]]
    assert len(env) == len(set(env))
    assert set(names) <= set(env)


@pytest.mark.parametrize(
    ("resources", "devices"),
    [({}, "void"), ({"gpusPerNode": 2}, None), (CLAIMED, None), ({"gpusPerNode": 0}, "void")],
    ids=["nothing", "GPUs", "claims", "no GPUs"],
)
def test_a_pod_that_requests_no_gpu_gets_none_from_the_runtime(resources: Any, devices: str | None) -> None:
    """The runtime reads the variable of the image otherwise; with GPUs it is the device plugin's."""
    env = variables(template_of({"resources": resources}))
    assert env.get("NVIDIA_VISIBLE_DEVICES", {}).get("value") == devices


def test_the_platform_may_give_gpus_without_requests() -> None:
    template = template_of({}, trainer__extra_env={"NVIDIA_VISIBLE_DEVICES": "0"})
    assert variables(template)["NVIDIA_VISIBLE_DEVICES"]["value"] == "0"


def test_no_other_pod_gets_gpus_from_the_runtime() -> None:
    jobs = [body for case, make in CASES.items() if not case.startswith("training") for body in make()]
    containers = [each for body in jobs if body["kind"] == "Job" for each in desired_objects.all_containers(body)]
    assert len(containers) >= 10
    for container in containers:
        assert {"name": "NVIDIA_VISIBLE_DEVICES", "value": "void"} in container["env"]


def test_jobs_have_the_labels_that_the_platform_sets_for_their_pods(monkeypatch: pytest.MonkeyPatch) -> None:
    staging = PodsSettings(labels={"cost": "staging", "app": "tuning"})
    assert DEFAULTS.labels.items() <= job_of({}, trainer__pods=DEFAULTS)["metadata"]["labels"].items()
    monkeypatch.setattr(desired_objects, "PLATFORM", changed(PLATFORM, staging__pods=staging))
    made = [body for case, make in CASES.items() if not case.startswith("training") for body in make()]
    jobs = [body["metadata"]["labels"] for body in made if body["kind"] == "Job"]
    assert len(jobs) >= 10
    for labels in jobs:
        assert {**labels, **staging.labels} == labels
        assert labels["hone.dev/component"]
