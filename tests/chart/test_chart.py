"""The chart renders what the cluster takes, with no more rights than it needs, and refuses what it does not know."""

import json
import re
import subprocess
from pathlib import Path

import kubernetes_validate
import pytest
import yaml
from support.cluster import quick_yaml
from support.cluster.chart_documents import CHART, HelmError, named, of_kind, template

from hone_api.generate import KINDS
from hone_api.kinds.finetunejob import FineTuneJobSpec
from hone_dev.chart import generate
from hone_dev.chart.values import ChartValues
from hone_dev.tools import tools
from hone_operator.settings import load
from hone_operator.settings.pods import TrainerPods
from hone_operator.settings.values import Values

pytestmark = pytest.mark.pure
PUBLIC_KEY = (
    "-----BEGIN PUBLIC KEY-----\nMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEtW3KnFeUNGUBw5h70VmbRd7wAYa/\n"
    "lqWWrpO8Pmo4pnzPCKusUYB+3SclvJ+zEug2HrmbTy6k7IXR6ekxNNqvkQ==\n-----END PUBLIC KEY-----\n"
)
GOLDEN = Path(__file__).with_name("rbac.golden.yaml")
EVERYTHING = {
    "nameOverride": "tuner",
    "commonLabels": {"team": "platform"},
    "image": {"digest": "sha256:" + "a" * 64},
    "imagePullSecrets": [{"name": "pull"}],
    "trainer": {"image": {"repository": "r.example/t", "tag": "1"}, "extraEnv": {"NCCL_DEBUG": "WARN", "A": "on"}},
    "staging": {"runtimeClassName": "gvisor"},
    "huggingFace": {"endpoint": "https://hub.example.internal/hf"},
    "caBundle": {"configMapName": "company-ca"},
    "store": {"storageClassName": "fast", "accessMode": "ReadWriteOnce"},
    "serviceAccount": {"annotations": {"a": "b"}},
    "strategy": "RollingUpdate",
    "leaderElection": {"enabled": True},
    "deploymentAnnotations": {"reloader.stakater.com/auto": "true"},
    "serviceAnnotations": {"team": "platform"},
    "podLabels": {"x": "y"},
    "podAnnotations": {"p": "q"},
    "nodeSelector": {"pool": "system"},
    "tolerations": [{"key": "k", "operator": "Exists"}],
    "affinity": {"nodeAffinity": {}},
    "topologySpreadConstraints": [
        {"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "ScheduleAnyway", "labelSelector": {}}
    ],
    "priorityClassName": "system-cluster-critical",
    "extraEnv": {"HTTPS_PROXY": "http://proxy"},
    "extraVolumes": [{"name": "ca", "configMap": {"name": "ca"}}],
    "extraVolumeMounts": [{"name": "ca", "mountPath": "/ca"}],
    "extraObjects": [{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "{{ .Release.Name }}-extra"}}],
    "signing": {
        "secretName": "platform-key",
        "publicKeys": [PUBLIC_KEY],
        "required": True,
    },
    "metrics": {"renderMode": "alwaysRender", "podMonitor": {"enabled": True, "labels": {"release": "kps"}}},
    "prometheusRule": {
        "enabled": True,
        "labels": {"release": "kps"},
        "runbookBaseUrl": "https://wiki.example/runbooks/",
    },
    "dashboards": {"enabled": True, "annotations": {"folder": "Hone"}},
    "networkPolicy": {
        "operator": {"enabled": True, "restrictEgress": True},
        "trainer": {"namespaces": ["ml"], "extraEgress": [{}]},
    },
}
VARIANTS = {
    "defaults": {},
    "everything": EVERYTHING,
    "some namespaces": {"watchNamespaces": ["team-a", "team-b"]},
    "named namespaces": {"namespaces": ["team-a", "team-b"]},
    "all namespaces": {"allNamespaces": True},
    "no admission": {"admission": {"enabled": False}},
    "no progress": {"progress": {"enabled": False}},
    "service monitor": {"metrics": {"renderMode": "alwaysRender", "serviceMonitor": {"enabled": True}}},
    "bare": {"crds": {"enabled": False}, "rbac": {"create": False, "aggregateToUserRoles": False}},
}
LARGE = {"limits": {"maxSourceBytes": 10**13}, "podLimits": {"trainingSeconds": 2_000_000_000}}
"""Helm reads these as floating-point numbers."""
FOREIGN = ("monitoring.coreos.com/", "apiextensions.k8s.io/")


def merge(defaults, values):
    both = {**defaults, **values}
    parts = {name: merge(defaults[name], values[name]) for name in values if isinstance(defaults.get(name), dict)}
    return {**both, **parts}


@pytest.mark.parametrize("values", VARIANTS.values(), ids=VARIANTS.keys())
def test_every_document_is_valid_and_none_comes_twice(render, values):
    documents = render(values)
    refs = [(d["kind"], d["metadata"].get("namespace"), d["metadata"]["name"]) for d in documents]
    assert len(set(refs)) == len(refs)
    for document in documents:
        if not document["apiVersion"].startswith(FOREIGN):
            kubernetes_validate.validate(document, "1.37", strict=True)


@pytest.mark.parametrize("values", VARIANTS.values(), ids=VARIANTS.keys())
def test_nothing_is_random_or_looked_up(values):
    first, second = (template(json.dumps(values)) for _ in range(2))
    assert first == second


@pytest.mark.parametrize("values", VARIANTS.values(), ids=VARIANTS.keys())
def test_the_operator_understands_its_settings(render, values, tmp_path, monkeypatch):
    config = of_kind(render(values), "ConfigMap")
    text = next(c["data"]["config.yaml"] for c in config if "config.yaml" in c.get("data", {}))
    file = tmp_path / "config.yaml"
    file.write_text(text)
    monkeypatch.setenv("HONE_CONFIG_FILE", str(file))
    settings = load()
    assert settings.namespace == "hone-system"
    assert settings.watch_namespaces == values.get("watchNamespaces", [])
    if values == EVERYTHING:
        assert settings.trainer.extra_env == {"NCCL_DEBUG": "WARN", "A": "on"}
        assert (settings.trainer.runtime_class_name, settings.staging.runtime_class_name) == ("", "gvisor")
        assert settings.hugging_face.endpoint == "https://hub.example.internal/hf"
        assert (settings.ca_bundle.config_map_name, settings.ca_bundle.key) == ("company-ca", "ca-bundle.crt")
        assert (settings.store.storage_class_name, settings.store.access_mode) == ("fast", "ReadWriteOnce")
        assert settings.signing.public_keys == [PUBLIC_KEY]
        assert (settings.signing.secret_name, settings.signing.required) == ("platform-key", True)
    expected = None if values.get("progress") else True
    assert (settings.progress_url is not None) == (expected is not None)


@pytest.mark.parametrize("values", [*VARIANTS.values(), LARGE], ids=[*VARIANTS, "large numbers"])
def test_the_operator_reads_the_values_as_they_are(render, values):
    files = [each.get("data", {}) for each in of_kind(render(values), "ConfigMap")]
    config = yaml.safe_load(next(data["config.yaml"] for data in files if "config.yaml" in data))
    merged = merge(yaml.safe_load((generate.CHART / "values.yaml").read_text()), values)
    sections = [field.alias for field in Values.model_fields.values()]
    assert len(sections) >= 20
    for section in sections:
        given, read = merged[section], config[section]
        if section == "trainer":
            given = {
                name: value for name, value in given.items() if name in TrainerPods.model_json_schema()["properties"]
            }
        if isinstance(given, dict):
            read = {name: value for name, value in read.items() if name in given}
        assert read == given, section


def test_defaults_of_the_chart_are_those_of_the_operator(render, tmp_path, monkeypatch):
    file = tmp_path / "config.yaml"
    file.write_text(named(render(), "ConfigMap", "hone-config")["data"]["config.yaml"])
    monkeypatch.setenv("HONE_CONFIG_FILE", str(file))
    chart = load()
    images = {name: getattr(chart.trainer, name) for name in ("image", "vllm_image", "serving_image")}
    # Outside the chart there is no role to bind: the operator works wherever its user may.
    opt_in = {"role": "hone-system-hone-namespace", "service_account": "hone"}
    # There is no chart either whose namespaces of monitoring it could share.
    given = {"namespace": "hone-system", "trainer": images, "opt_in": opt_in, "metrics_from": chart.metrics_from}
    file.write_text(yaml.safe_dump(given))
    own = load()
    progress = chart.progress.model_copy(update={"service_host": None})
    assert chart.model_copy(update={"progress": progress}) == own


@pytest.mark.parametrize("values", VARIANTS.values(), ids=VARIANTS.keys())
def test_pods_pass_pod_security_restricted(render, values):
    """https://kubernetes.io/docs/concepts/security/pod-security-standards/, and a read-only root file system."""
    documents = render(values)
    specs = [d["spec"]["template"]["spec"] for d in of_kind(documents, "Deployment")]
    specs += [d["spec"] for d in of_kind(documents, "Pod")]
    assert len(specs) == 2
    for spec in specs:
        assert not {"hostNetwork", "hostPID", "hostIPC"} & spec.keys()
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"]["runAsUser"] > 0
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert spec["enableServiceLinks"] is False
        assert all({"configMap", "emptyDir"} & volume.keys() for volume in spec.get("volumes", [])), "no Secret"
        for container in spec["containers"]:
            context = container["securityContext"]
            assert context["allowPrivilegeEscalation"] is False
            assert context["capabilities"] == {"drop": ["ALL"]}
            assert context["readOnlyRootFilesystem"] is True
            assert container["resources"]["limits"]["memory"]


def rights(documents):
    """{role: [[groups, resources, names, verbs], …]} of the operator's service account."""
    bound = {}
    for binding in of_kind(documents, "ClusterRoleBinding", "RoleBinding"):
        if any(subject["name"] == "hone" for subject in binding["subjects"]):
            role = binding["roleRef"]
            where = binding["metadata"].get("namespace", "*") if binding["kind"] == "RoleBinding" else "all namespaces"
            for found in of_kind(documents, role["kind"]):
                meta = found["metadata"]
                here = found["kind"] == "ClusterRole" or meta["namespace"] == binding["metadata"]["namespace"]
                if meta["name"] == role["name"] and here:
                    bound[f"{where}: {meta['name']}"] = found["rules"]
    return bound


def test_rights_of_the_operator(render):
    """A right more or less is a decision: write it into the golden file, with its reason in the commit."""
    got = {
        "by label": rights(render()),
        "namespaces: [team-a]": rights(render({"namespaces": ["team-a"]})),
        "allNamespaces": rights(render({"allNamespaces": True})),
        "watchNamespaces: [team-a]": rights(render({"watchNamespaces": ["team-a"]})),
    }
    assert got == yaml.safe_load(GOLDEN.read_text())


@pytest.mark.parametrize("values", VARIANTS.values(), ids=VARIANTS.keys())
def test_no_role_has_a_wildcard_or_reads_secrets(render, values):
    documents = render(values)
    for role in of_kind(documents, "Role", "ClusterRole"):
        for rule in role["rules"]:
            assert "*" not in rule["apiGroups"] + rule["resources"] + rule["verbs"]
            if "secrets" in rule["resources"]:
                assert role["kind"] == "Role"
                assert role["metadata"]["namespace"] == "hone-system"
                assert [name.endswith("-operator-tls") for name in rule["resourceNames"]] == [True]
                assert rule["verbs"] == ["get", "patch"]
            forbidden = {"pods/exec", "pods/attach", "serviceaccounts/token", "roles"}
            assert not forbidden & set(rule["resources"])
            if "nodes" in rule["resources"]:
                assert rule["verbs"] == ["get"]
            assert not {"impersonate", "escalate"} & set(rule["verbs"])
            if "bind" in rule["verbs"]:
                assert [name.endswith("-namespace") for name in rule["resourceNames"]] == [True]


def test_watch_namespaces_leave_no_right_elsewhere(render):
    documents = render({"watchNamespaces": ["team-a", "team-b"]})
    cluster_wide = [k for k in rights(documents) if k.startswith("all namespaces")]
    assert cluster_wide == ["all namespaces: hone-system-hone-tokenreview"]
    assert {r["metadata"]["namespace"] for r in of_kind(documents, "Role")} == {"team-a", "team-b", "hone-system"}


@pytest.mark.parametrize(
    "values",
    [
        {"hugingFace": {"endpoint": "https://x"}},
        {"trainer": {"image": {"tga": "1"}}},
        {"metrics": {"podMonitor": {"enable": True}}},
        {"concurrency": 0},
        {"log": {"level": "LOUD"}},
        {"huggingFace": {"endpoint": "hub.example"}},
        {"store": {"accessMode": "ReadOnlyMany"}},
        {"image": {"digest": "latest"}},
    ],
)
def test_a_wrong_value_is_refused(render, values):
    with pytest.raises(Exception, match=r"don't meet the specifications of the schema"):
        render(values)


@pytest.mark.parametrize(
    "values",
    [
        {"watchNamespaces": ["a"], "namespaces": ["b"]},
        {"watchNamespaces": ["a"], "allNamespaces": True},
        {"namespaces": ["a"], "allNamespaces": True},
    ],
)
def test_two_answers_to_where_it_works_are_refused(render, values):
    with pytest.raises(Exception, match=r"remove namespaces"):
        render(values)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"signing": {"secretName": "hone-key", "publicKeys": [PUBLIC_KEY]}}, "begins with tenants.secretPrefix"),
        (
            {"signing": {"secretName": "key", "publicKeys": [PUBLIC_KEY]}, "tenants": {"secretPrefix": ""}},
            "read the key",
        ),
        ({"signing": {"required": True}}, "set signing.publicKeys"),
        ({"signing": {"keyless": {"serviceAccount": "signer"}}}, "keyless"),
    ],
)
def test_a_signing_key_that_tenants_could_read_is_refused(render, values, said):
    with pytest.raises(Exception, match=said):
        render(values)


def test_helm_test_says_who_submits_its_job_where_duties_are_separate(render):
    values = {"admission": {"separateDuties": True}, "helmTest": {"namespace": "team-a"}}
    with pytest.raises(
        HelmError, match=r"set helmTest\.submittedBy to the user who will run helm test, as kubectl auth"
    ):
        render(values)
    values["helmTest"]["submittedBy"] = "ada@example.org"
    [job] = of_kind(render(values), "FineTuneJob")
    assert job["spec"]["submittedBy"] == "ada@example.org"


def test_helm_test_takes_the_longest_name_of_a_release(render):
    documents = render({"fullnameOverride": "h" * 50, "helmTest": {"namespace": "team-a"}})
    [rows], [job] = of_kind(documents, "Dataset"), of_kind(documents, "FineTuneJob")
    FineTuneJobSpec.model_validate(job["spec"])
    assert job["metadata"]["name"] == rows["metadata"]["name"] == job["spec"]["datasets"][0]["name"]
    assert len(rows["metadata"]["name"]) <= 50


def test_pods_of_helm_test_start_where_the_operator_does(render):
    here = {"nodeSelector": {"pool": "system"}, "tolerations": [{"key": "system", "operator": "Exists"}]}
    values = {**here, "podSecurity": {"fixedUser": False}, "helmTest": {"namespace": "team-a"}}
    pods = [pod["spec"] for pod in of_kind(render(values), "Pod")]
    assert [{key: pod[key] for key in here} for pod in pods] == [here, here]
    assert [pod["securityContext"].get("runAsUser") for pod in pods] == [None, None]


def test_a_queue_for_staging_without_kueue_is_refused(render):
    with pytest.raises(Exception, match=r"set kueue\.enabled to true, or leave staging\.queueName empty"):
        render({"staging": {"queueName": "staging"}})


def test_only_a_pod_that_signs_mounts_the_key(render):
    rules = json.dumps(render(EVERYTHING))
    assert "v.secret.secretName == 'platform-key'" in rules
    assert "v.secret.secretName ==" not in json.dumps(render())


def test_policies_know_the_images_of_the_values(render):
    def images(values):
        policy = named(render(values), "ValidatingAdmissionPolicy", "hone-system-hone-operator-jobs")
        return next(v["expression"] for v in policy["spec"]["validations"] if "c.image in" in v["expression"])

    digest = "sha256:" + "a" * 64
    found = images(
        {"trainer": {"image": {"repository": "r.example/t", "digest": digest}, "vllmImage": {"repository": ""}}}
    )
    assert f'c.image in ["r.example/t@{digest}"]' in found
    assert '"r.example/t:0.1.0","r.example/v:1","r.example/old:1"' in images(
        {
            "trainer": {"image": {"repository": "r.example/t"}, "vllmImage": {"repository": "r.example/v", "tag": "1"}},
            "admission": {"extraImages": ["r.example/old:1"]},
        }
    )


def test_objects_of_the_operator_are_in_the_namespace_of_the_value(render):
    texts = [json.dumps(document) for document in render(EVERYTHING)]
    moved = [json.dumps(document) for document in render({**EVERYTHING, "namespaceOverride": "elsewhere"})]
    checksum = re.compile(r'checksum/config": "\w+"')
    assert any("hone-system" in text for text in texts)
    for before, after in zip(texts, moved, strict=True):
        assert checksum.sub("", after) == checksum.sub("", before.replace("hone-system", "elsewhere"))


def test_annotations_of_deployment_and_services(render):
    documents = render(EVERYTHING)
    (deployment,) = of_kind(documents, "Deployment")
    assert deployment["metadata"]["annotations"] == EVERYTHING["deploymentAnnotations"]
    assert [s["metadata"]["annotations"] for s in of_kind(documents, "Service")] == [{"team": "platform"}] * 2


def test_two_operators_at_once_need_a_lease(render):
    assert of_kind(render(), "Deployment")[0]["spec"]["strategy"] == {"type": "Recreate"}
    with pytest.raises(HelmError, match=r"strategy RollingUpdate starts a second.*set leaderElection\.enabled"):
        render({"strategy": "RollingUpdate"})


def test_a_renderer_without_a_cluster_sees_no_classes(render):
    """Argo CD gives the kinds of the cluster, and looks nothing up."""
    kinds = [word for kind in ("v1/Pod", "hone.dev/v1alpha1/FineTuneJob") for word in ("--api-versions", kind)]
    values = {"store": {"storageClassName": "fast"}}
    assert render(values, *kinds) == render(values)


def test_an_old_cluster_is_refused(render):
    with pytest.raises(HelmError, match=r"requires kubeVersion: >=1\.30\.0-0 which is incompatible .* v1\.29\.9"):
        render({}, "--kube-version", "1.29.9")


def test_the_definitions_of_both_charts_are_the_same(render):
    apart = subprocess.check_output([tools.helm(), "template", "hone-crds", CHART.with_name("hone-crds")], text=True)
    assert quick_yaml.documents(apart) == of_kind(render(), "CustomResourceDefinition")
    versions = [yaml.safe_load((CHART.with_name(name) / "Chart.yaml").read_text()) for name in ("hone", "hone-crds")]
    assert len({(each["version"], each["appVersion"], each["kubeVersion"]) for each in versions}) == 1


def test_approval_is_not_part_of_edit(render):
    roles = of_kind(render(), "ClusterRole")
    approving = [r for r in roles if any("approve" in rule["verbs"] for rule in r["rules"])]
    assert [r["metadata"]["name"] for r in approving] == ["hone-system-hone-approve"]
    aggregated = {k for k in approving[0]["metadata"]["labels"] if k.startswith("rbac.")}
    assert aggregated == {"rbac.authorization.k8s.io/aggregate-to-admin"}
    separate = of_kind(render({"admission": {"separateDuties": True}}), "ClusterRole")
    (alone,) = (r for r in separate if r["metadata"]["name"] == "hone-system-hone-approve")
    assert not any(label.startswith("rbac.") for label in alone["metadata"]["labels"])


def test_both_monitors_at_once_are_refused(render):
    both = {"metrics": {"podMonitor": {"enabled": True}, "serviceMonitor": {"enabled": True}}}
    with pytest.raises(Exception, match=r"each sample would come twice"):
        render(both)


def test_render_modes(render):
    on = {"podMonitor": {"enabled": True}}
    kinds = ("PodMonitor", "PrometheusRule")
    values = {"metrics": {**on, "renderMode": "skipIfMissing"}, "prometheusRule": {"enabled": True}}
    assert of_kind(render(values), *kinds) == []
    assert len(of_kind(render(values, "--api-versions", "monitoring.coreos.com/v1"), *kinds)) == 4
    with pytest.raises(Exception, match=r"monitoring\.coreos\.com/v1 are not installed"):
        render({"metrics": {**on, "renderMode": "failIfMissing"}})


def test_definitions_are_the_generated_ones_and_are_kept(render):
    for keep in (True, False):
        crds = of_kind(render({"crds": {"keep": keep}}), "CustomResourceDefinition")
        assert len(crds) == len(KINDS)
        for crd in crds:
            file = generate.CHART / f"files/crds/{crd['spec']['names']['plural']}.yaml"
            source = quick_yaml.document(file.read_text())
            annotations = crd["metadata"]["annotations"]
            assert (annotations.pop("helm.sh/resource-policy", None) == "keep") is keep
            assert crd == source
    assert of_kind(render({"crds": {"enabled": False}}), "CustomResourceDefinition") == []


def test_a_changed_setting_rolls_the_pod(render):
    def checksum(values):
        deployment = named(render(values), "Deployment", "hone")
        return deployment["spec"]["template"]["metadata"]["annotations"]["checksum/config"]

    assert checksum({}) != checksum({"concurrency": 8})
    assert checksum({}) == checksum({"nodeSelector": {"a": "b"}})


def test_images(render):
    def image(values):
        return named(render(values), "Deployment", "hone")["spec"]["template"]["spec"]["containers"][0]["image"]

    assert image({"image": {"repository": "r.example/o"}}) == "r.example/o:0.1.0"
    assert image({"image": {"repository": "r.example/o", "tag": "x"}}) == "r.example/o:x"
    digest = "sha256:" + "a" * 64
    assert image({"image": {"repository": "r.example/o", "tag": "x", "digest": digest}}) == f"r.example/o@{digest}"


@pytest.mark.parametrize("repository", ["", "hone", "hone/operator", "acme/hone/operator"])
@pytest.mark.parametrize("image", ["image", "trainer.image"])
def test_an_image_without_a_registry_is_refused(repository, image):
    with pytest.raises(HelmError, match=r"names no registry.*install.md.*global.imageRegistry"):
        template("{}", "--set", f"{image}.repository={repository}")


def test_one_registry_for_all_images(render):
    values = {
        "global": {"imageRegistry": "mirror.example:5000/hub", "storageClass": "of another chart"},
        "image": {"digest": "sha256:" + "a" * 64},
        "trainer": {"vllmImage": {"repository": "localhost/vllm", "tag": "2"}},
    }
    documents = render(values)
    images = {
        pod["containers"][0]["image"]
        for pod in [
            named(documents, "Deployment", "hone")["spec"]["template"]["spec"],
            *(d["spec"] for d in of_kind(documents, "Pod")),
        ]
    }
    assert images == {"mirror.example:5000/hub/hone/operator@sha256:" + "a" * 64}
    policy = named(documents, "ValidatingAdmissionPolicy", "hone-system-hone-operator-jobs")
    pods = ["hone/trainer:0.1.0", "vllm:2"]
    config = yaml.safe_load(named(documents, "ConfigMap", "hone-config")["data"]["config.yaml"])
    settings = [config["trainer"]["image"], config["trainer"]["vllmImage"]]
    assert settings == [f"mirror.example:5000/hub/{pod}" for pod in pods]
    assert config["trainer"]["servingImage"] == "mirror.example:5000/hub/vllm/vllm-openai:v0.31.0"
    assert f"c.image in {json.dumps(settings, separators=(',', ':'))}" in json.dumps(policy).replace('\\"', '"')


def test_rules_and_dashboards_are_the_tested_files(render):
    documents = render(EVERYTHING)
    rule = of_kind(documents, "PrometheusRule")[0]
    rules = (generate.CHART / "files/rules/hone.yaml").read_text()
    assert rule["spec"] == yaml.safe_load(rules.replace("docs/guides/runbooks", "https://wiki.example/runbooks"))
    boards = next(d["data"] for d in of_kind(documents, "ConfigMap") if d["metadata"]["name"].endswith("-dashboards"))
    files = {p.name: p.read_text() for p in (generate.CHART / "files/dashboards").glob("*.json")}
    assert boards == {
        n: text.replace("docs/guides/runbooks", "https://wiki.example/runbooks") for n, text in files.items()
    }
    assert "https://wiki.example/runbooks/${__data.fields.alertname}" in boards["fleet.json"]
    boards = next(
        d["data"]
        for d in of_kind(render({"dashboards": {"enabled": True}}), "ConfigMap")
        if d["metadata"]["name"].endswith("-dashboards")
    )
    assert "docs/guides" not in str(boards)
    assert '"url": "/alerting/list"' in boards["fleet.json"]


def test_generated_files_are_up_to_date():
    """Otherwise: python -m hone_dev.chart.generate."""
    for path, text in generate.generated().items():
        assert path.read_text() == text, path


def test_values_yaml_is_what_the_model_says():
    values = yaml.safe_load((generate.CHART / "values.yaml").read_text())
    assert ChartValues.model_validate(values) == ChartValues()


@pytest.mark.attack("metrics")
@pytest.mark.parametrize("monitor", ["podMonitor", "serviceMonitor"])
def test_a_trainer_pod_speaks_for_itself_alone(render, monitor):
    """It can neither pose as another namespace, nor fill Prometheus."""
    documents = render({"metrics": {monitor: {"enabled": True}, "renderMode": "alwaysRender"}})
    [found] = [d for d in documents if d["kind"] == "PodMonitor" and d["metadata"]["name"].endswith("-trainer")]
    [endpoint] = found["spec"]["podMetricsEndpoints"]
    assert endpoint["honorLabels"] is False
    assert endpoint["metricRelabelings"][0]["action"] == "keep"
    assert endpoint["metricRelabelings"][0]["regex"] == "hone_trainer_.*"
    assert found["spec"]["sampleLimit"] <= 1000
    assert {"labelLimit", "labelValueLengthLimit", "bodySizeLimit"} <= found["spec"].keys()


def test_the_authority_that_running_pods_trust_survives_an_uninstall(render):
    [secret] = of_kind(render(), "Secret")
    assert secret["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"


@pytest.mark.parametrize("empty", [None, {"job": None, "pod": None, "container": None}])
def test_fields_that_are_left_empty_are_none(render, empty):
    assert render({"admission": {"extraFields": empty}}) == render({})
