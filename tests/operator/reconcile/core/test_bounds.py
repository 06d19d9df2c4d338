"""What the platform lets tenants ask for, where no admission policy has said so before."""

import pytest
from support.cluster.platforms import changed
from support.lives.dataset_life import Life as DatasetLife

from hone_api.words.states import Reason
from hone_operator.reconcile.core.bounds import secret_names
from hone_operator.reconcile.core.outcome import Refusal
from hone_operator.reconcile.core.refusals import refusal
from hone_operator.settings.tenants import TenantSettings

pytestmark = pytest.mark.pure
STRICT = TenantSettings(
    secret_prefix="hone-",
    priority_classes=["batch-*"],
    toleration_keys=["nvidia.com/*", "node-role.kubernetes.io/control-plane"],
    node_selector_keys=["pool"],
    models=["hf://org/*", "pvc://models/smol"],
    workload_priority_classes=[],
    env=["NCCL_IB_*"],
    pod_keys=["example.org/*"],
    destinations=["oci://registry.example.org/a/*"],
    max_gpus=8,
)
HUB = {"uri": "hf://org/model", "secretName": "database"}


@pytest.fixture
def strict(world):
    world.platform = changed(world.platform, tenants=STRICT)
    return world


@pytest.mark.attack("objects at the API server")
@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ({"model": HUB}, "spec.model.secretName: Secrets for Hone are called hone-… here"),
        (
            {"scheduling": {"priorityClassName": "system-node-critical"}},
            "spec.scheduling.priorityClassName system-node",
        ),
        ({"scheduling": {"priorityClassName": "other"}}, "tenants.priorityClasses of the chart: batch-*"),
        ({"scheduling": {"tolerations": [{"operator": "Exists"}]}}, "spec.scheduling.tolerations[0] has no key"),
        ({"scheduling": {"tolerations": [{"key": "x", "operator": "Exists"}]}}, "tenants.tolerationKeys of the chart"),
        ({"scheduling": {"nodeSelector": {"zone": "a"}}}, "tenants.nodeSelectorKeys of the chart: pool"),
        ({"model": {"uri": "hf://organ/model"}}, "spec.model.uri hf://organ/model is not allowed here (tenants.models"),
        ({"model": {"uri": "pvc://models/smol2"}}, "tenants.models of the chart: hf://org/*, pvc://models/smol)"),
        (
            {"pod": {"serviceAccountName": "admin"}},
            "spec.pod.serviceAccountName admin is not allowed here (tenants.serviceAccounts of the chart: none)",
        ),
        (
            {"pod": {"runtimeClassName": "kata"}},
            "spec.pod.runtimeClassName kata is not allowed here (tenants.runtimeClasses of the chart: none)",
        ),
        (
            {"resources": {"claims": [{"name": "gpus", "resourceClaimTemplateName": "gpu-8"}]}},
            "spec.resources.claims[0].resourceClaimTemplateName gpu-8 is not allowed here "
            "(tenants.resourceClaimTemplates of the chart: none)",
        ),
        (
            {"pod": {"volumes": [{"mountPath": "/mnt/a", "claimName": "hone-store"}]}},
            "spec.pod.volumes[0].claimName cannot be hone-store: it is the store",
        ),
        (
            {"pod": {"env": [{"name": "A", "secretName": "database", "key": "k"}]}},
            "spec.pod.env[0].secretName: Secrets for Hone are called hone-… here",
        ),
        (
            {"pod": {"env": [{"name": "NCCL_IB_HCA", "value": "a"}, {"name": "OPENSSL_CONF", "value": "/mnt/a"}]}},
            "spec.pod.env[1] OPENSSL_CONF is not allowed here (tenants.env of the chart: NCCL_IB_*)",
        ),
        (
            {"pod": {"annotations": {"cost": "a", "example.org/a": "b", "dapr.io/enabled": "true"}}},
            "spec.pod.annotations dapr.io/enabled is not allowed here (tenants.podKeys of the chart: example.org/*)",
        ),
        (
            {"output": {"modelName": "m", "push": [{"uri": "oci://registry.example.org/b/m"}]}},
            "spec.output.push oci://registry.example.org/b/m is not allowed here (tenants.destinations of the chart",
        ),
        (
            {"scheduling": {"queueName": "team", "workloadPriorityClass": "urgent"}},
            "tenants.workloadPriorityClasses of the chart: none",
        ),
        (
            {"resources": {"nodes": 2, "gpusPerNode": 8}, "training": {"batchSize": 16}},
            "spec.resources asks for 16 GPUs over all nodes, and a job may have 8 here (tenants.maxGpus of the chart)",
        ),
    ],
)
def test_it_is_refused_with_the_way_out(strict, new_life, conditions, spec, words):
    life = new_life(**spec)
    assert life.tick().create == ()
    assert conditions(life.status)["Accepted"] == "False/NotAllowed"
    assert words in life.status["failure"]["message"]
    assert life.status["phase"] == "Failed"


@pytest.mark.attack("objects at the API server")
@pytest.mark.parametrize("name", ["system-node-critical", "system-cluster-critical"])
def test_system_classes_are_refused_even_where_all_are_allowed(new_life, conditions, name):
    life = new_life(scheduling={"priorityClassName": name})
    life.tick()
    assert conditions(life.status)["Accepted"] == "False/NotAllowed"


@pytest.mark.attack("objects at the API server")
@pytest.mark.parametrize("key", ["node-role.kubernetes.io/control-plane", "node-role.kubernetes.io/master"])
@pytest.mark.parametrize("field", ["tolerations", "nodeSelector"])
def test_the_control_plane_is_not_covered_by_a_star(new_life, conditions, field, key):
    wish = [{"key": key, "operator": "Exists"}] if field == "tolerations" else {key: ""}
    life = new_life(scheduling={field: wish})
    life.tick()
    assert conditions(life.status)["Accepted"] == "False/NotAllowed"


@pytest.mark.attack("objects at the API server")
@pytest.mark.parametrize("entry", ["n*", "node-role.kubernetes.io/*", "node-role.kubernetes.io/control-plane*"])
def test_no_prefix_covers_the_control_plane(world, new_life, conditions, entry):
    world.platform = changed(world.platform, tenants__toleration_keys=[entry], tenants__node_selector_keys=[entry])
    life = new_life(scheduling={"nodeSelector": {"node-role.kubernetes.io/control-plane": ""}})
    life.tick()
    assert conditions(life.status)["Accepted"] == "False/NotAllowed"


@pytest.mark.parametrize(
    "spec",
    [
        {"model": {"uri": "pvc://models/smol"}},
        {"model": {"uri": "pvc://models/smol"}, "resources": {"nodes": 1, "gpusPerNode": 8}},
    ],
)
def test_a_listed_model_and_as_many_gpus_as_allowed_are_taken(strict, new_life, conditions, spec):
    life = new_life(**spec)
    life.tick()
    assert conditions(life.status)["Accepted"] == "True/Accepted"


def test_what_is_listed_is_taken(strict, new_life):
    tolerations = [
        {"key": "nvidia.com/gpu", "operator": "Exists"},
        {"key": "node-role.kubernetes.io/control-plane", "operator": "Exists"},
    ]
    scheduling = {"priorityClassName": "batch-low", "tolerations": tolerations, "nodeSelector": {"pool": "a"}}
    life = new_life(scheduling=scheduling)
    assert [b["kind"] for b in life.tick().create] == ["ConfigMap", "Job"]


def test_a_run_that_was_accepted_before_goes_on(world, new_life, conditions):
    life = new_life(model={"uri": "pvc://models/smol"}, scheduling={"nodeSelector": {"zone": "a"}})
    life.tick()
    life.pods(world.pod())
    world.platform = changed(world.platform, tenants=STRICT)
    life.tick(10)
    assert conditions(life.status)["Accepted"] == "True/Accepted"
    assert conditions(life.status)["Running"].startswith("True")


def test_another_class_for_the_next_attempt_is_looked_at(world, new_life, conditions):
    life = new_life()
    life.tick()
    life.job["spec"]["scheduling"] = {"priorityClassName": "system-node-critical"}
    life.ends("Failed", world.dead(137))
    life.tick(70)
    life.tick(200)
    assert [child.name for child in life.children] == ["run-1"]
    assert conditions(life.status)["Admitted"] == "False/NotAllowed"
    life.job["spec"]["scheduling"] = {}
    life.tick(210)
    assert [child.name for child in life.children] == ["run-1", "run-2"]


def test_a_dataset_that_names_a_foreign_secret_is_refused(strict, conditions):
    life = DatasetLife(strict, source={"uri": "hf://a/b", "secretName": "database"})
    assert life.tick().create == ()
    assert conditions(life.status)["Accepted"] == "False/NotAllowed"
    assert "copy it to a Secret called hone-database" in life.status["failure"]["message"]


def test_secrets_are_found_at_any_depth():
    spec = {"a": {"secretName": "x"}, "b": [{"c": {"secretName": "y"}}], "secretName": "z", "d": {"secretName": 5}}
    assert sorted(secret_names(spec)) == [
        ("spec.a.secretName", "x"),
        ("spec.b[0].c.secretName", "y"),
        ("spec.secretName", "z"),
    ]


INVALID = 'Job.batch "x" is invalid: spec.template.spec.tolerations[0].value: Invalid value: "x"'
DENIED = "jobs.batch \"x\" is forbidden: ValidatingAdmissionPolicy 'p' with binding 'b' denied request: no"
WEBHOOK = 'admission webhook "images.example" denied the request: unsigned'
QUOTA = 'jobs.batch "x" is forbidden: exceeded quota: q'


@pytest.mark.parametrize(
    ("status", "message", "reason", "final"),
    [
        (422, INVALID, "CreateRefused", True),
        (422, DENIED, "CreateRefused", False),
        (422, WEBHOOK, "CreateRefused", False),
        (403, WEBHOOK, "CreateRefused", False),
        (403, QUOTA, "QuotaExceeded", False),
    ],
)
def test_only_an_invalid_field_is_final(status, message, reason, final):
    found = refusal({"kind": "Job", "metadata": {"name": "x"}}, status, message)
    assert (found.reason, found.final) == (reason, final)


def test_an_invalid_pod_ends_the_run_with_the_api_servers_words(life, conditions):
    life.tick(refusals=[Refusal("Job", "run-1", "CreateRefused", INVALID, final=True)])
    assert life.status["failure"]["code"] == "CreateRefused"
    assert INVALID in life.status["failure"]["message"]
    assert conditions(life.status)["Finished"] == "True/Failed"


def test_an_invalid_job_of_a_dataset_is_final(world, conditions):
    life = DatasetLife(world)
    life.tick(refusals=[Refusal("Job", "rows-data", "CreateRefused", INVALID, final=True)])
    assert conditions(life.status)["Stalled"] == "True/CreateRefused"
    assert life.status["phase"] == "Failed"


@pytest.mark.parametrize(
    ("mode", "nodes", "accepted", "words"),
    [
        ("ReadWriteMany", 2, "True/Accepted", None),
        ("ReadWriteOnce", 1, "True/Accepted", None),
        ("ReadWriteOnce", 2, "True/Accepted", "all 2 pods must fit on one node"),
        ("ReadWriteOncePod", 1, "True/Accepted", None),
        ("ReadWriteOncePod", 2, "False/PlatformUnsuitable", "serves one pod at a time"),
    ],
)
def test_a_store_of_one_node_is_reported_at_submission(world, new_life, conditions, mode, nodes, accepted, words):
    world.platform = changed(world.platform, store__access_mode=mode)
    life = new_life(resources={"nodes": nodes})
    life.datasets = {}  # not even the data is there yet
    life.tick()
    assert conditions(life.status)["Accepted"] == accepted
    message = next(c["message"] for c in life.status["conditions"] if c["type"] == "Accepted")
    assert message == Reason.ACCEPTED.when if words is None else words in message
