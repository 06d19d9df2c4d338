"""Values of another type than their default: refused by the schema, before a template could render them."""

import copy
import json
import subprocess
from collections.abc import Iterator
from typing import Any

import jsonschema
import pytest
import yaml
from support.cluster.chart_documents import CHART, IMAGES, HelmError, template

from hone_dev.tools import tools

pytestmark = pytest.mark.pure
DEFAULTS = yaml.safe_load((CHART / "values.yaml").read_text())
SCHEMA = jsonschema.Draft7Validator(json.loads((CHART / "values.schema.json").read_text()))
SOUND = (7, True, ["x"], {"x": "y"})
WRONG = ("x y", "x\ny", [7], [None], [["x"]], {"x": 7}, {"x": None}, {"x y": "y"}, {"": "y"})
TYPES = {**dict.fromkeys(("global", "admission.extraFields.job"), dict), "helmTest.submittedBy": str}
TYPES |= dict.fromkeys(("admission.extraFields.pod", "admission.extraFields.container"), dict)
"""Values that may be anything of a type: of Kubernetes, of other charts, of a user."""
ALSO = dict.fromkeys(("resources.requests.cpu", "resources.requests.memory", "resources.limits.memory"), 7)
ALSO["prometheusRule.gpuHourPrices"] = {"x": 7}


def values(node: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    for name, value in node.items() if isinstance(node, dict) else ():
        yield (*path, name), value
        yield from values(value, (*path, name))


def is_accepted(path: tuple[str, ...], value: Any) -> bool:
    changed = copy.deepcopy(DEFAULTS)
    node = changed
    for part in path[:-1]:
        node = node[part]
    node[path[-1]] = value
    return SCHEMA.is_valid(changed)


def test_each_value_accepts_its_own_type_alone() -> None:
    accepted = []
    for path, default in values(DEFAULTS):
        name = ".".join(path)
        for value in (*SOUND, *WRONG):
            sound = value in SOUND and type(value) is type(default)
            free = isinstance(value, TYPES.get(name, ())) or (value is not True and value == ALSO.get(name))
            if not sound and not free and is_accepted(path, value):
                accepted.append((name, value))
    assert accepted == []


@pytest.mark.parametrize(
    ("path", "value"),
    [
        *(("resources.requests.cpu", cpu) for cpu in (0.5, ".5", "500m", "+1", "1e-1")),
        ("extraEnv", {"of.a-proxy": "x"}),
        ("extraEnv", [{"name": "of.a-proxy", "value": "x"}]),
    ],
)
def test_what_kubernetes_takes_is_accepted(path: str, value: Any) -> None:
    assert is_accepted(tuple(path.split(".")), value)


@pytest.mark.parametrize("name", ["null", "true", "123", "1e3"])
def test_a_name_that_yaml_reads_as_something_else_stays_a_name(name: str) -> None:
    """The rights of the operator in a namespace `null` were given in the namespace of the release."""
    given = {"namespaces": [name], "helmTest": {"namespace": name}, "namespaceOverride": name, "nameOverride": name}
    given |= {
        "fullnameOverride": "" if name[0].isdigit() else name,
        "priorityClassName": name,
        "serviceAccount": {"name": name},
    }
    for document in yaml.safe_load_all(template(json.dumps(given))):
        metadata = (document or {}).get("metadata", {})
        labels = metadata.get("labels", {})
        assert {type(text) for text in (metadata.get("namespace", name), *labels.values())} == {str}
        names = [each for rule in (document or {}).get("rules") or () for each in rule.get("resourceNames", ())]
        assert all(isinstance(each, str) for each in names), names
        if document and document["kind"] == "Deployment":
            pod = document["spec"]["template"]["spec"]
            assert (pod["priorityClassName"], pod["serviceAccountName"]) == (name, name)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (
            {"commonLabels": {"app.kubernetes.io/name": "x"}},
            "commonLabels: the chart itself sets app.kubernetes.io/name",
        ),
        ({"podAnnotations": {"checksum/config": "x"}}, "podAnnotations: the chart itself sets checksum/config"),
        (
            {"trainer": {"pods": {"labels": {"hone.dev/x": "y"}}}},
            "trainer.pods.labels: hone.dev/x is of Kubernetes",
        ),
        (
            {"staging": {"pods": {"annotations": {"k8s.io/x": "y"}}}},
            "staging.pods.annotations: k8s.io/x is of",
        ),
        ({"fullnameOverride": "1st"}, "1st: the name of a Service begins with a letter"),
        ({"progress": {"port": 8080}}, "progress.port 8080, metrics.port 8080 and 8081, .* must differ"),
        ({"progress": {"port": 8081}}, "progress.port 8081, metrics.port 8080 and 8081, .* must differ"),
        ({"metrics": {"port": 8081}}, "progress.port 8443, metrics.port 8081 and 8081, .* must differ"),
        ({"image": {"repository": "registry.example/Ours/operator"}}, "at '/image/repository': .* does not match"),
        ({"global": {"imageRegistry": "registry.example/Ours"}}, "at '/global/imageRegistry': .* does not match"),
        (
            {"prometheusRule": {"runbookBaseUrl": "wiki.example"}},
            "at '/prometheusRule/runbookBaseUrl': .* does not match",
        ),
        (
            {"prometheusRule": {"runbookBaseUrl": "ftp://wiki"}},
            "at '/prometheusRule/runbookBaseUrl': .* does not match",
        ),
        ({"trainer": {"extraEnv": {"PATH": "x"}}}, "trainer.extraEnv: Hone itself sets PATH, choose another name"),
        ({"trainer": {"extraEnv": [{"name": "HONE_X", "value": "y"}]}}, "trainer.extraEnv: Hone itself sets HONE_X"),
        (
            {"trainer": {"networks": {"roce": {"env": {"HOME": "x"}}}}},
            "trainer.networks.roce.env: Hone itself sets HOME",
        ),
        (
            {"resources": {"requests": {"memory": "1Gi"}}},
            "resources.requests.memory 1Gi is more than resources.limits.memory 512Mi: raise the limit",
        ),
        ({"resources": {"requests": {"cpu": 1}, "limits": {"cpu": "900m"}}}, "requests.cpu 1 is more than resources"),
        ({"resources": {"requests": {"memory": "2e9"}, "limits": {"memory": "1G"}}}, "requests.memory 2e9 is more"),
    ],
)
def test_what_would_break_the_operators_own_objects_is_refused(given: Any, said: str) -> None:
    with pytest.raises(HelmError, match=said):
        template(json.dumps(given))


def test_a_release_whose_name_no_service_may_have_is_refused_before_anything_is_written() -> None:
    """Helm takes a dot in the name of a release; the API server refused the Services after 55 other objects."""
    result = subprocess.run([tools.helm(), "template", "hone.v1", CHART, *IMAGES], capture_output=True, text=True)
    assert "hone.v1: the name of a Service begins with a letter and has no dot" in result.stderr


def test_other_variables_and_equal_amounts_are_taken() -> None:
    same = {"requests": {"memory": "1024Mi", "cpu": "1000m"}, "limits": {"memory": "1Gi", "cpu": 1}}
    template(json.dumps({"resources": same, "trainer": {"extraEnv": {"PATHS": "x", "NCCL_DEBUG": "INFO"}}}))


NODES = {"nodeSelectorTerms": [{"matchExpressions": [{"key": "a", "operator": "In", "values": ["b"]}]}]}
VOLUME = {"name": "a", "projected": {"sources": [{"secret": {"name": "b", "items": [{"key": "c", "path": "d"}]}}]}}
PODS = {"labelSelector": {"matchLabels": {"a": "b"}}, "topologyKey": "kubernetes.io/hostname"}
OF_KUBERNETES: list[tuple[str, Any]] = [
    ("affinity", {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": NODES}}),
    ("affinity", {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [PODS]}}),
    ("topologySpreadConstraints", [PODS | {"maxSkew": 1, "whenUnsatisfiable": "DoNotSchedule"}]),
    ("extraVolumes", [VOLUME]),
    ("extraVolumes", [{"name": "a", "csi": {"driver": "b", "volumeAttributes": {"c": "d"}}}]),
    ("extraVolumeMounts", [{"name": "a", "mountPath": "/a", "readOnly": True}]),
    ("networkPolicy.metricsFrom", [{"namespaceSelector": {"matchLabels": {"a": "b"}}}]),
    ("networkPolicy.dns", [{"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.1.0.0/16"]}}]),
    ("networkPolicy.operator.egress", [{"ports": [{"port": 1, "endPort": 2}], "to": [{"ipBlock": {"cidr": "::/0"}}]}]),
]


@pytest.mark.parametrize(("path", "value"), OF_KUBERNETES, ids=[path for path, _ in OF_KUBERNETES])
def test_an_unknown_field_at_any_depth_is_refused_before_anything_is_written(path: str, value: Any) -> None:
    assert is_accepted(tuple(path.split(".")), value)
    accepted = [place for place, wrong in misspelt(value, path) if is_accepted(tuple(path.split(".")), wrong)]
    assert [place for place in accepted if not place.endswith(("matchLabels", "volumeAttributes"))] == []


def misspelt(node: Any, place: str) -> Iterator[tuple[str, Any]]:
    """The value with an unknown field in one of its objects."""
    if isinstance(node, dict):
        yield place, node | {"unknown": "x"}
        for name, value in node.items():
            yield from ((where, node | {name: wrong}) for where, wrong in misspelt(value, f"{place}.{name}"))
    elif isinstance(node, list):
        for index, value in enumerate(node):
            for where, wrong in misspelt(value, f"{place}[{index}]"):
                yield where, [*node[:index], wrong, *node[index + 1 :]]


MORE = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "{{ .Release.Name }}-more"}}


@pytest.mark.parametrize("absent", ["apiVersion", "kind", "metadata", "name"])
def test_an_object_without_what_names_it_is_refused_before_anything_is_written(absent: str) -> None:
    template(json.dumps({"extraObjects": [MORE]}))
    broken = MORE | {"metadata": {}} if absent == "name" else {key: MORE[key] for key in MORE if key != absent}
    with pytest.raises(HelmError, match=f"at '/extraObjects/1.*missing property '{absent}'"):
        template(json.dumps({"extraObjects": [MORE, broken]}))


@pytest.mark.parametrize("operator", ["Exists", "Gt", "Lt"])
@pytest.mark.parametrize("path", ["tolerations", "trainer.pods.tolerations"])
def test_a_toleration_may_compare_numbers(path: str, operator: str) -> None:
    assert is_accepted(tuple(path.split(".")), [{"key": "a", "operator": operator, "value": "5"}])
    assert not is_accepted(tuple(path.split(".")), [{"key": "a", "operator": f"{operator}s", "value": "5"}])


class OnceEach(yaml.SafeLoader):
    """Refuses a key that stands twice, as the YAML of Flux and kustomize does; Helm and kubectl take the last one."""


def mapping(loader: OnceEach, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
    found = loader.construct_mapping(node, deep=deep)
    assert len(found) == len(node.value), node.start_mark
    return found


OnceEach.add_constructor("tag:yaml.org,2002:map", lambda loader, node: mapping(loader, node, deep=True))


def test_a_label_of_one_kind_of_object_wins_over_a_label_of_all() -> None:
    given = {
        "commonLabels": {"release": "all", "team": "all"},
        "podLabels": {"team": "pod"},
        "metrics": {"podMonitor": {"enabled": True, "labels": {"release": "pods"}}},
        "prometheusRule": {"enabled": True, "labels": {"release": "rule"}},
        "dashboards": {"enabled": True, "sidecarLabel": "team", "sidecarLabelValue": "1"},
    }
    monitors = ("PodMonitor", "PrometheusRule")
    rendered = template(json.dumps(given), "--api-versions=monitoring.coreos.com/v1")
    documents = [each for each in yaml.load_all(rendered, OnceEach) if each]
    labels = {each["kind"]: each["metadata"]["labels"] for each in documents if each["kind"] in monitors}
    assert {kind: of["release"] for kind, of in labels.items()} == {"PodMonitor": "pods", "PrometheusRule": "rule"}
    (operator,) = (each for each in documents if each["kind"] == "Deployment")
    assert operator["metadata"]["labels"]["team"] == "all"
    pod = operator["spec"]["template"]["metadata"]["labels"]
    assert pod["team"] == "pod"
    assert pod.items() >= operator["spec"]["selector"]["matchLabels"].items()
    (dashboards,) = (each for each in documents if each["metadata"]["name"].endswith("-dashboards"))
    assert dashboards["metadata"]["labels"]["team"] == "1"
