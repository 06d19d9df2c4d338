"""A chain of jobs against a real API server: applied at once, each stage begins when the one before it is verified."""

import json

import pytest

pytestmark = pytest.mark.apiserver


def ready(namespace, job):
    return namespace.condition("FineTuneJob", job, "ModelReady")


def plan_of(namespace, job):
    name = namespace.get("Job", job)["spec"]["template"]["spec"]["volumes"][0]["configMap"]["name"]
    return json.loads(namespace.get("ConfigMap", name)["data"]["plan.json"])


def test_the_next_stage_begins_when_the_model_before_it_is_verified(namespace, operator, spec, result):
    namespace.dataset()
    namespace.create("FineTuneJob", "second", spec(model={"fineTuneJob": "first"}, output={"modelName": "aligned"}))
    namespace.until(lambda: ready(namespace, "second").get("reason") == "FineTuneJobNotFound", "it looks for first")
    namespace.create("FineTuneJob", "first", spec())
    namespace.until(lambda: ready(namespace, "second").get("reason") == "WaitingForJob", "it waits for first")
    namespace.until(lambda: namespace.get("Job", "first-1"), "attempt 1 of first")
    namespace.succeed("first-1", result)
    namespace.until(
        lambda: ready(namespace, "second").get("reason") == "WaitingForModelVersion", "it waits for tutor-v1"
    )
    verify = namespace.until(lambda: [n for n in namespace.names("Job") if "verify" in n], "a verify Job")[0]
    namespace.succeed(verify, {"kind": "Verify", "files": 3, "sizeBytes": 7})
    namespace.until(lambda: namespace.get("Job", "second-1"), "attempt 1 of second")

    first = namespace.get("FineTuneJob", "first")["metadata"]["uid"]
    plan = plan_of(namespace, "second-1")
    assert plan["modelVersion"] == "tutor-v1"
    assert plan["modelAdapter"]["path"] == f"/store/models/{first}/adapter"

    namespace.delete("FineTuneJob", "first")
    namespace.delete("ModelVersion", "tutor-v1")
    namespace.succeed("second-1", result)
    version = namespace.until(lambda: namespace.get("ModelVersion", "aligned-v1"), "the ModelVersion of second")
    lineage = version["spec"]["lineage"]
    assert lineage["baseModel"]["modelVersion"] == "tutor-v1"
    assert [(a["modelVersion"], a["job"]["uid"]) for a in lineage["ancestors"]] == [("tutor-v1", first)]


def test_a_failed_stage_ends_the_ones_after_it_with_its_reason(namespace, operator, spec):
    namespace.dataset()
    chain = {
        "first": {"uri": "pvc://models/smol"},
        "second": {"fineTuneJob": "first"},
        "third": {"fineTuneJob": "second"},
    }
    for name, model in chain.items():
        namespace.create("FineTuneJob", name, spec(model=model, output={"modelName": name}))
    namespace.until(lambda: namespace.get("Job", "first-1"), "attempt 1 of first")
    namespace.fail("first-1", 70, {"code": "Diverged", "message": "loss is nan at step 7"})
    for name in ("second", "third"):
        namespace.until(
            lambda name=name: namespace.condition("FineTuneJob", name, "Failed").get("reason") == "UpstreamFailed", name
        )
    failure = namespace.get("FineTuneJob", "second")["status"]["failure"]
    assert "FineTuneJob first failed with Diverged: loss is nan at step 7" in failure["message"]
    assert (
        "FineTuneJob second failed with UpstreamFailed"
        in namespace.get("FineTuneJob", "third")["status"]["failure"]["message"]
    )


def test_a_circle_is_refused_however_it_is_made(namespace, operator, spec):
    namespace.dataset()
    namespace.create("FineTuneJob", "a", spec(model={"fineTuneJob": "b"}))
    namespace.until(lambda: ready(namespace, "a").get("reason") == "FineTuneJobNotFound", "a waits")
    namespace.create("FineTuneJob", "b", spec(model={"fineTuneJob": "a"}))
    for name in ("a", "b"):
        namespace.until(
            lambda name=name: namespace.condition("FineTuneJob", name, "Finished").get("status") == "True", name
        )
    assert any(
        "circular reference" in namespace.get("FineTuneJob", n)["status"]["failure"]["message"] for n in ("a", "b")
    )


BASE_IMAGE = "registry.example.org/bases/llama@sha256:" + "a" * 64


def images_of(namespace, job):
    """(images that the pods of a Job mount, where, Secrets with which they are pulled)."""
    pod = namespace.get("Job", job)["spec"]["template"]["spec"]
    volumes = {v["name"]: v["image"] for v in pod["volumes"] if "image" in v}
    mounts = [m for m in pod["containers"][0]["volumeMounts"] if m["name"] in volumes]
    assert all(m["readOnly"] for m in mounts)
    return (
        list(volumes.values()),
        [m["mountPath"] for m in mounts],
        [s["name"] for s in pod.get("imagePullSecrets", ())],
    )


def test_a_base_in_an_image_is_mounted_by_every_stage_and_fetched_by_none(namespace, operator, spec, result):
    """The pods are asked for in a namespace that enforces the restricted standard."""
    namespace.label(**{"pod-security.kubernetes.io/enforce": "restricted"})
    namespace.dataset()
    base = {"uri": f"oci://{BASE_IMAGE}", "secretName": "hone-pull"}
    namespace.create("FineTuneJob", "first", spec(model=base))
    namespace.until(lambda: namespace.get("Job", "first-1"), "attempt 1 of first")
    (image,), (folder,), secrets = images_of(namespace, "first-1")
    assert (image, secrets) == ({"reference": BASE_IMAGE, "pullPolicy": "Always"}, ["hone-pull"])
    assert plan_of(namespace, "first-1")["modelPath"] == f"{folder}/models"
    namespace.succeed("first-1", result)
    version = namespace.until(lambda: namespace.get("ModelVersion", "tutor-v1"), "the ModelVersion of first")
    made_from = version["spec"]["lineage"]["baseModel"]
    assert made_from["location"] == f"oci://{BASE_IMAGE}"
    assert made_from["commit"] == BASE_IMAGE.partition("@")[2]  # provenance, ML-BOM and trackers write it
    verify = namespace.until(lambda: [n for n in namespace.names("Job") if "verify" in n], "a verify Job")[0]
    namespace.succeed(verify, {"kind": "Verify", "files": 3, "sizeBytes": 7})
    namespace.create("FineTuneJob", "second", spec(model={"modelVersion": "tutor-v1"}, output={"modelName": "aligned"}))
    namespace.until(lambda: namespace.get("Job", "second-1"), "attempt 1 of second")
    assert images_of(namespace, "second-1") == ([image], [folder], [])
    assert plan_of(namespace, "second-1")["modelPath"] == f"{folder}/models"
    assert not [name for name in namespace.names("Job") if "fetch" in name]
