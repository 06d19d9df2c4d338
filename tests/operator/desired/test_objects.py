"""Objects of every kind of work, against golden files, Kubernetes' own schemas and Pod Security `restricted`."""

from __future__ import annotations

import json

import kubernetes_validate
import pytest
import yaml
from support.cluster import desired_objects
from support.cluster.desired_objects import (
    CASES,
    PLATFORM,
    REWARDS,
    all_containers,
    dataset,
    gpus,
    harness_tasks,
    model_fetch,
    one_pod,
    run,
    two_nodes,
)
from support.cluster.platforms import changed, platform_with

from hone_api import RELEASE
from hone_api.contract.plan_reading import parse_plan
from hone_api.kinds.finetunejob import FineTuneJobSpec
from hone_api.kinds.modelversion import Ancestor, JobLineage
from hone_api.kinds.resolved import Resolved
from hone_api.plan import Limits, NetworkPlan
from hone_operator.desired.core import names
from hone_operator.desired.core.podlimits import resources
from hone_operator.desired.core.quantity import value
from hone_operator.desired.core.shared import Shared
from hone_operator.desired.run.tracking import plan_input
from hone_operator.settings.pods import PodLimitSettings

pytestmark = pytest.mark.pure
KUBERNETES = "1.34"


@pytest.fixture(params=sorted(CASES))
def case(request: pytest.FixtureRequest) -> str:
    return request.param


def test_objects_are_as_reviewed(case, golden):
    golden(case, CASES[case]())


def test_objects_are_valid_kubernetes(case):
    for body in CASES[case]():
        kubernetes_validate.validate(body, KUBERNETES, strict=True)


def test_the_same_input_gives_the_same_objects(case):
    assert CASES[case]() == CASES[case]()


def test_pods_pass_pod_security_restricted(case):
    """The controls of https://kubernetes.io/docs/concepts/security/pod-security-standards/, level restricted."""
    allowed = {"configMap", "emptyDir", "image", "persistentVolumeClaim", "projected", "secret"}
    for body in CASES[case]():
        if body["kind"] != "Job":
            continue
        spec = body["spec"]["template"]["spec"]
        assert not {"hostNetwork", "hostPID", "hostIPC"} & spec.keys()
        assert "serviceAccountName" not in spec
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"]["runAsUser"] == 10001
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert spec["automountServiceAccountToken"] is False
        for volume in spec["volumes"]:
            assert volume.keys() - {"name"} <= allowed
        for container in all_containers(body):
            context = container["securityContext"]
            assert context["allowPrivilegeEscalation"] is False
            assert context["capabilities"] == {"drop": ["ALL"]}
            assert context["readOnlyRootFilesystem"] is True


def test_every_pod_has_limits_and_a_longest_time(case):
    for body in CASES[case]():
        if body["kind"] != "Job":
            continue
        spec = body["spec"]["template"]["spec"]
        assert spec["activeDeadlineSeconds"] >= 7 * 24 * 3600
        scratch = next(v["emptyDir"]["sizeLimit"] for v in spec["volumes"] if v["name"] == "tmp")
        for container in all_containers(body):
            requests, limits = container["resources"]["requests"], container["resources"]["limits"]
            assert {"cpu", "memory", "ephemeral-storage"} <= limits.keys()
            assert requests["memory"] == limits["memory"]
            for name in ("cpu", "ephemeral-storage"):
                assert value(requests[name]) <= value(limits[name])
            assert value(limits["ephemeral-storage"]) > value(scratch)


@pytest.mark.parametrize("case", ["materialize-hub", "materialize-mixture"])
def test_pods_of_a_dataset_that_names_nothing_request_what_the_platform_chose(case, monkeypatch):
    monkeypatch.setattr(desired_objects, "PLATFORM", changed(PLATFORM, datasets__cpu="3", datasets__memory="5Gi"))
    (job,) = (body for body in CASES[case]() if body["kind"] == "Job")
    requests = job["spec"]["template"]["spec"]["containers"][0]["resources"]["requests"]
    assert (requests["cpu"], requests["memory"]) == ("3", "5Gi")


@pytest.mark.parametrize("component", ["training", "other"])
def test_pods_run_in_the_runtimes_of_the_platform(component, monkeypatch):
    """All of them: a Job that forgets its RuntimeClass parses foreign data on the node's kernel."""
    platform = changed(PLATFORM, trainer__runtime_class_name="kata", staging__runtime_class_name="gvisor")
    monkeypatch.setattr(desired_objects, "PLATFORM", platform)
    made = {case: make() for case, make in CASES.items() if not case.startswith("training")}
    if component == "training":
        made = {"training": run({}, platform=platform)}
    jobs = [body for bodies in made.values() for body in bodies if body["kind"] == "Job"]
    assert jobs
    found = {job["spec"]["template"]["spec"].get("runtimeClassName") for job in jobs}
    assert found == {"kata" if component == "training" else "gvisor"}


@pytest.mark.parametrize(
    ("cpu", "factor", "limit"),
    [("100m", 4, "4"), ("500m", 4, "4"), ("8", 4, "32"), ("1500m", 3, "4500m"), ("64", 1, "64"), ("2", 0, None)],
)
def test_the_cpu_limit_leaves_room(cpu, factor, limit):
    platform = platform_with("trainer:1", pod_limits=PodLimitSettings(cpu_factor=factor))
    assert resources(cpu, "1Gi", {}, platform)["limits"].get("cpu") == limit


def test_ephemeral_storage_can_be_left_out():
    platform = platform_with("trainer:1", pod_limits=PodLimitSettings(ephemeral_storage_request=""))
    found = resources("1", "1Gi", {"nvidia.com/gpu": "2"}, platform)
    assert found["requests"] == {"cpu": "1", "memory": "1Gi", "nvidia.com/gpu": "2"}
    assert found["limits"] == {"memory": "1Gi", "nvidia.com/gpu": "2", "cpu": "4"}


def test_pods_start_python_and_no_shell(case):
    for body in CASES[case]():
        if body["kind"] == "Job":
            for container in all_containers(body):
                assert container["command"][:3] == ["python", "-m", "hone_trainer"]
                assert container["command"][4:] == ["/etc/hone/plan.json"]


def test_plans_can_be_read_by_the_trainer(case):
    for body in CASES[case]():
        if body["kind"] == "ConfigMap" and body["metadata"]["name"] != names.CONTENTS:
            assert parse_plan(body["data"]["plan.json"]).release == RELEASE


def test_every_plan_that_names_servers_has_the_network_of_the_platform(monkeypatch):
    monkeypatch.setattr(desired_objects, "PLATFORM", changed(PLATFORM, cluster_domain="example.internal"))
    seen = {}
    for make in (*CASES.values(), desired_objects.imported_model):
        for body in make():
            plan = parse_plan(body["data"]["plan.json"]) if "plan.json" in body.get("data", {}) else None
            if isinstance(plan, NetworkPlan):
                seen[type(plan)] = (plan.cluster_domain, plan.namespace)
    assert seen == dict.fromkeys(NetworkPlan.__subclasses__(), ("example.internal", "team"))


def test_children_are_owned_and_carry_nothing_of_git_ops_tools(case):
    if case == "store":
        pytest.skip("the store is owned by nobody")
    for body in CASES[case]():
        meta = body["metadata"]
        if meta["name"] == names.CONTENTS:
            continue  # nor is what remembers its contents
        if meta["ownerReferences"][0]["kind"] == "Job":
            assert body["kind"] in ("ConfigMap", "NetworkPolicy", "Service"), "what its pods need may go with a Job"
        else:
            assert meta["ownerReferences"][0]["uid"] == "0000-uid"
        assert meta["ownerReferences"][0]["controller"] is True
        assert "app.kubernetes.io/instance" not in meta["labels"]
        assert "argocd" not in json.dumps(meta.get("annotations", {}))


def test_secrets_never_become_environment(case):
    assert "secretKeyRef" not in json.dumps(CASES[case]())


def test_the_kubelet_expands_no_user_value():
    env = {e["name"]: e["value"] for e in one_pod()[-1]["spec"]["template"]["spec"]["containers"][0]["env"]}
    assert env["NOTE"] == "costs $$(PRICE) or $$$$5"


def test_only_pods_that_download_know_the_hub():
    training_env = yaml.safe_dump(gpus())
    assert "HF_ENDPOINT" not in training_env
    assert "HF_HUB_OFFLINE" in training_env
    assert "HF_ENDPOINT" in yaml.safe_dump(model_fetch())
    assert "HF_ENDPOINT" in yaml.safe_dump(harness_tasks())


@pytest.mark.parametrize(
    ("made", "volume", "paths"),
    [
        (
            lambda: run({"model": {"uri": "pvc://hone-store/models/a"}}),
            ("store", False),
            {
                "/store/runs/0000-uid": None,
                "/store/models/0000-uid": None,
                "/store/datasets": True,
                "/model/models/a": True,
            },
        ),
        (
            lambda: dataset("pvc://hone-store/rows.jsonl"),
            ("store", False),
            {
                "/store/incoming/rows-data-e14762a9": None,
                "/store/source-files/0000-uid": None,
                "/store/datasets": True,
                "/source": True,
            },
        ),
        (lambda: dataset("pvc://data/rows.jsonl"), ("source", True), {"/source": True}),
    ],
)
def test_a_claim_is_one_volume_however_often_it_is_mounted(made, volume, paths):
    """The kubelet starts no pod that has a claim in two volumes."""
    spec = made()[-1]["spec"]["template"]["spec"]
    name, read_only = volume
    (found,) = (v for v in spec["volumes"] if v["name"] == name)
    assert found["persistentVolumeClaim"].get("readOnly") is read_only
    first = all_containers(made()[-1])[0]
    mounted = {m["mountPath"]: m.get("readOnly") for m in first["volumeMounts"] if m["name"] == name}
    assert mounted == paths
    claims = [v["persistentVolumeClaim"]["claimName"] for v in spec["volumes"] if "persistentVolumeClaim" in v]
    assert len(claims) == len(set(claims))


def test_every_rank_can_be_found_by_name():
    config, _, service, job = two_nodes()
    host = json.loads(config["data"]["plan.json"])["masterAddress"]
    assert host == "run-3-0.run-3.team.svc.cluster.local"
    assert service["metadata"]["name"] == job["spec"]["template"]["spec"]["subdomain"] == "run-3"
    assert service["spec"]["selector"] == {"batch.kubernetes.io/job-name": job["metadata"]["name"]}


@pytest.mark.attack("rendezvous")
@pytest.mark.parametrize(
    ("labels", "port", "reached"),
    [
        ({"batch.kubernetes.io/job-name": "run-3"}, 29500, True),
        ({"batch.kubernetes.io/job-name": "run-3"}, 41234, True),
        ({"batch.kubernetes.io/job-name": "run-4", "hone.dev/component": "training"}, 29500, False),
        ({"hone.dev/component": "training"}, 41234, False),
        ({}, 29500, False),
        ({"app": "prometheus"}, 9400, True),
    ],
)
def test_ranks_of_several_nodes_are_reached_by_each_other_alone(labels, port, reached):
    _, policy, _, job = two_nodes()
    assert policy["spec"]["podSelector"] == {"matchLabels": {"batch.kubernetes.io/job-name": job["metadata"]["name"]}}
    assert policy["spec"]["policyTypes"] == ["Ingress"]
    assert policy["metadata"]["ownerReferences"] == job["metadata"]["ownerReferences"]

    def lets_in(rule):
        peers = [peer["podSelector"]["matchLabels"].items() for peer in rule.get("from", ())]
        from_here = not peers or any(peer <= labels.items() for peer in peers)
        return from_here and port in [p["port"] for p in rule.get("ports", [{"port": port}])]

    assert any(lets_in(rule) for rule in policy["spec"]["ingress"]) == reached


@pytest.mark.parametrize("length", [1, 52])
def test_names_fit_at_the_longest(length):
    name = "x" * length
    for made in (
        names.attempt(name, 999) + "-1023",
        Shared("fetch", "0" * 16, name).job_name(12345),
        names.materialize(name, "uid", 12345, 12345),
        names.verify(name + "-v1000000", "uid", 9),
    ):
        assert len(made) <= 63


def test_a_dotted_name_becomes_a_label():
    assert "." not in names.verify("my.model", "uid", 1)


@pytest.mark.parametrize("uri", ["pvc://claim/../other", "pvc://claim/a/../../b", "configmap://a/.."])
def test_a_path_that_leaves_its_root_is_refused(uri):
    with pytest.raises(names.InvalidReferenceError):
        names.split_uri(uri)


@pytest.mark.parametrize("allowed", [True, False])
def test_the_platform_says_whether_endpoints_may_be_private(allowed):
    platform = changed(PLATFORM, limits=Limits(allow_private_addresses=allowed))
    config, _ = run({}, platform=platform)
    assert parse_plan(config["data"]["plan.json"]).allow_private_addresses is allowed


@pytest.mark.parametrize("secret", ["hone-mlflow", None])
def test_the_mlflow_run_of_all_attempts_is_in_the_plan_with_its_tags(secret):
    asked = {"type": "MLflow", "uri": "https://mlflow.example.org", **({"secretName": secret} if secret else {})}
    config, job = run({"tracking": [asked]})
    tracking = parse_plan(config["data"]["plan.json"]).tracking
    owner = job["metadata"]["ownerReferences"][0]
    assert (tracking.uri, tracking.uid) == ("https://mlflow.example.org", owner["uid"])
    assert tracking.secret_path == ("/secrets/tracking" if secret else None)
    assert tracking.tags["hone.job"] == owner["name"]
    assert {name for name in tracking.tags if name.startswith("hone.dataset.")}
    volumes = [v["secret"] for v in job["spec"]["template"]["spec"]["volumes"] if "secret" in v]
    assert [v["secretName"] for v in volumes] == ([secret] if secret else [])


@pytest.mark.parametrize("kind", ["TensorBoard", "Trackio", "WandB"])
def test_a_tracker_without_a_server_gets_a_folder_of_the_store_and_no_secret(kind):
    config, job = run({"tracking": [{"type": kind}]})
    tracking = parse_plan(config["data"]["plan.json"]).tracking
    folder = f"tracking/{kind.lower()}"
    assert (tracking.type, tracking.uri, tracking.path) == (kind, f"pvc://hone-store/{folder}", f"/store/{folder}")
    assert (tracking.experiment, tracking.secret_path, tracking.group) == ("m", None, None)
    [container] = job["spec"]["template"]["spec"]["containers"]
    mounted = {mount.get("subPath"): mount.get("readOnly", False) for mount in container["volumeMounts"]}
    assert mounted[folder] is False
    assert not [v for v in job["spec"]["template"]["spec"]["volumes"] if "secret" in v]


@pytest.mark.parametrize(
    ("labels", "stages", "expected"),
    [
        ({"hone.dev/sweep": "lr"}, 0, ("lr", None)),
        ({}, 2, ("stage-v0", "uid-0")),
        ({"hone.dev/sweep": "lr"}, 1, ("lr", "uid-0")),
        ({}, 0, (None, None)),
    ],
)
def test_a_run_is_logged_with_its_sweep_and_the_beginning_of_its_chain(labels, stages, expected):
    body = {"model": {"uri": "pvc://m/x"}, "datasets": [{"name": "rows"}], "output": {"modelName": "m"}}
    spec = FineTuneJobSpec.model_validate({**body, "tracking": [{"type": "TensorBoard"}]})
    meta = {"name": "job", "namespace": "team", "uid": "u", "labels": labels}
    ancestors = [
        Ancestor.model_construct(model_version=f"stage-v{number}", job=JobLineage(name="j", uid=f"uid-{number}"))
        for number in range(stages)
    ]
    plan = plan_input(meta, spec, Resolved(), "image", ancestors, PLATFORM)
    assert (plan.group, plan.parent) == expected


@pytest.mark.parametrize("secret", ["teacher-key", None])
def test_the_key_of_a_teacher_is_mounted_and_its_path_is_in_the_plan(secret):
    endpoint = {"endpoint": "http://teacher.models.svc/v1", **({"secretName": secret} if secret else {})}
    config, job = run({"method": "Distillation", "distillation": {"teacherEndpoint": endpoint}})
    plan = parse_plan(config["data"]["plan.json"])
    assert plan.teacher_secret_path == ("/secrets/teacher" if secret else None)
    assert plan.distillation.teacher_endpoint.endpoint == "http://teacher.models.svc/v1"
    pod = job["spec"]["template"]["spec"]
    mounted = {volume["name"]: volume for volume in pod["volumes"] if "secret" in volume}
    paths = {mount["name"]: mount["mountPath"] for mount in pod["containers"][0]["volumeMounts"]}
    assert [volume["secret"]["secretName"] for volume in mounted.values()] == ([secret] if secret else [])
    assert all(paths[name] == "/secrets/teacher" for name in mounted)


@pytest.mark.parametrize("secret", ["vllm-key", None])
def test_the_key_of_a_server_of_samples_is_mounted_and_its_path_is_in_the_plan(secret):
    generation = {"engine": "VLLM", "endpoint": "http://vllm:8000", **({"secretName": secret} if secret else {})}
    config, job = run({"method": "GRPO", "grpo": {"rewards": REWARDS[:1], "generation": generation}})
    assert parse_plan(config["data"]["plan.json"]).generation_secret_path == ("/secrets/generation" if secret else None)
    pod = job["spec"]["template"]["spec"]
    mounted = {v["name"]: v["secret"]["secretName"] for v in pod["volumes"] if "secret" in v}
    paths = {mount["name"]: mount["mountPath"] for mount in pod["containers"][0]["volumeMounts"]}
    found = [(secret, paths[name]) for name, secret in mounted.items()]
    assert found == ([("vllm-key", "/secrets/generation")] if secret else [])


@pytest.mark.parametrize(
    "spec",
    [
        {"method": "GRPO", "grpo": {"rewards": REWARDS}},
        {"evaluation": {"rewards": REWARDS}},
        {"method": "GRPO", "grpo": {"rewards": REWARDS[:3]}, "evaluation": {"rewards": REWARDS[1:]}},
    ],
    ids=["trained on", "measured by", "both"],
)
def test_rewards_bring_programs_and_keys_into_the_pod(spec):
    config, job = run(spec)
    plan = parse_plan(config["data"]["plan.json"])
    assert plan.reward_paths == {"mine": "/etc/hone-rewards/1/reward.py", "judge": "/etc/hone-rewards/2"}
    pod = job["spec"]["template"]["spec"]
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    assert volumes["reward-1"]["configMap"] == {
        "name": "rewards",
        "optional": True,
        "defaultMode": 0o444,
        "items": [{"key": "style.py", "path": "reward.py"}],
    }
    assert volumes["reward-2"]["secret"]["secretName"] == "judge-key"
    mounts = {mount["name"]: mount for mount in pod["containers"][0]["volumeMounts"]}
    assert mounts["reward-1"] == {"name": "reward-1", "mountPath": "/etc/hone-rewards/1", "readOnly": True}
    assert {name for name in volumes if name.startswith("reward-")} == {"reward-1", "reward-2"}
