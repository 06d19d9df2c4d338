"""A foreign model becomes a version, at a real API server."""

import pytest

pytestmark = pytest.mark.apiserver
DIGEST = "sha256:" + "1" * 64
ADAPTER = {"uri": "hf://acme/tutor", "base": {"uri": "hf://acme/base"}}
RESULT = {
    "kind": "Import",
    "artifact": {"format": "Adapter", "uri": "adapter", "digest": DIGEST, "sizeBytes": 10},
    "digest": DIGEST,
    "commit": "a" * 40,
    "license": "apache-2.0",
    "base": {"path": "base-models/acme--base/c0ffee", "commit": "c0ffee", "license": "mit"},
    "adapterType": "LoRA",
    "adapterRank": 16,
}


def test_an_adapter_becomes_a_version_that_is_verified_like_any_other(namespace, operator):
    namespace.create("Model", "tutor", {"imports": [ADAPTER]})

    def jobs(component):
        return [name for name in namespace.names("Job") if f"-{component}-" in name]

    def imported():
        return namespace.condition("Model", "tutor", "Imported")

    [job] = namespace.until(lambda: jobs("import"), "an import Job")
    namespace.until(lambda: imported().get("reason") == "Importing", "the Model says so")
    namespace.succeed(job, RESULT)
    namespace.until(lambda: imported().get("status") == "True", "the version is recorded")
    [entry] = namespace.get("Model", "tutor")["status"]["imports"]
    assert (entry["state"], entry["modelVersion"]) == ("Imported", "tutor-v1")
    version = namespace.get("ModelVersion", "tutor-v1")
    assert version["spec"]["lineage"]["imported"]["uri"] == ADAPTER["uri"]
    assert "job" not in version["spec"]["lineage"]
    assert "ownerReferences" not in version["metadata"]
    namespace.until(lambda: not jobs("import"), "its Job is gone")
    [verify] = namespace.until(lambda: jobs("verify"), "a verify Job")
    namespace.succeed(verify, {"kind": "Verify", "files": 3, "sizeBytes": 10})
    namespace.until(lambda: namespace.condition("ModelVersion", "tutor-v1", "Ready").get("status") == "True", "Ready")
    servable = namespace.condition("ModelVersion", "tutor-v1", "Servable")
    assert (servable["status"], "vLLM: yes" in servable["message"]) == ("True", True)

    namespace.delete("ModelVersion", "tutor-v1")
    namespace.until(lambda: namespace.get("Model", "tutor")["status"].get("versions") == 0, "the version is gone")
    assert jobs("import") == [], "what was deleted is not imported again"
    spec = namespace.get("Model", "tutor")["spec"]
    assert spec == {"imports": [ADAPTER]}, "no machine writes a spec"


@pytest.mark.parametrize(
    ("entries", "why"),
    [
        ([{"uri": "oci://registry.example.org/Models/tutor"}], "a model is imported from hf://"),
        ([{"uri": "https://example.org/tutor"}], "a model is imported from hf://"),
        ([{"uri": "s3://models"}], "a model is imported from hf://"),
        ([{"uri": "hf://acme/tutor", "base": {"uri": "models://base@champion"}}], "the base of an adapter is hf://"),
        ([{"uri": "pvc://files/x", "secretName": "keys"}], "a volume needs no credentials"),
        ([{"uri": "hf://acme/tutor", "s3": {}}], "s3 is for s3:// only"),
        ([{"uri": "pvc://files/../x"}], "must not contain a . or .. segment"),
        ([ADAPTER, {"uri": "hf://acme/tutor"}], "imports names a uri twice"),
    ],
)
def test_what_cannot_be_imported_is_refused_with_the_way_out(namespace, entries, why):
    with pytest.raises(RuntimeError, match=why):
        namespace.create("Model", "tutor", {"imports": entries})
