"""The life of a job: the operator's process against a real API server; pods are played by hand."""

import pytest

pytestmark = pytest.mark.apiserver


def test_a_job_becomes_a_verified_model_version(namespace, operator, spec, result):
    namespace.dataset()
    namespace.create("FineTuneJob", "run", spec())
    namespace.until(lambda: namespace.get("Job", "run-1"), "attempt 1 exists")
    pods = namespace.start_pods("run-1")
    namespace.until(lambda: namespace.condition("FineTuneJob", "run", "Running")["status"] == "True", "Running")
    for rank, pod in enumerate(pods):
        namespace.end_pod(pod, 0, {"result": result} if rank == 0 else None)
    namespace.end_job("run-1", "Complete")
    namespace.until(lambda: namespace.condition("FineTuneJob", "run", "Finished")["status"] == "True", "Finished")

    status = namespace.get("FineTuneJob", "run")["status"]
    assert status["phase"] == "Succeeded"
    assert status["modelVersionName"] == "tutor-v1"
    assert status["progress"]["summary"] == "12/12 100%"
    assert [a["outcome"] for a in status["attempts"]] == ["Succeeded"]

    version = namespace.get("ModelVersion", "tutor-v1")
    assert "ownerReferences" not in version["metadata"]
    uid = namespace.get("FineTuneJob", "run")["metadata"]["uid"]
    assert version["spec"]["artifacts"][0]["uri"] == f"pvc://hone-store/models/{uid}/adapter"
    assert version["spec"]["lineage"]["datasets"][0]["digest"] == "sha256:" + "0" * 64

    verify = namespace.until(lambda: [n for n in namespace.names("Job") if "verify" in n], "a verify Job")[0]
    namespace.succeed(verify, {"kind": "Verify", "files": 3, "sizeBytes": 7})
    namespace.until(lambda: namespace.condition("ModelVersion", "tutor-v1", "Ready")["status"] == "True", "verified")
    assert namespace.get("ModelVersion", "tutor-v1")["status"]["evalLoss"] == "2.1"
    assert operator.stop() == 0
