"""`hone serve` at a real API server: candidates and unsigned versions are printed, with a warning on stderr."""

import pytest
import yaml
from typer.testing import CliRunner

from hone_cli.__main__ import application

pytestmark = pytest.mark.apiserver
NOW = "2026-01-01T00:00:00Z"


@pytest.fixture
def add(namespace):
    """Adds a version of the model `desk` that is Ready; `signed` is the status of its condition Signed."""

    def create(number, state=None, signed=None):
        name, digest = f"desk-v{number}", f"sha256:{'0' * 64}"
        base = {"uri": "hf://owner/base@main", "location": "pvc://hone-store/base-models/b1"}
        lineage = {"baseModel": base, "datasets": [], "job": {"name": "desk", "uid": "x"}, "method": "SFT", "seed": 1}
        adapter = {"format": "Adapter", "uri": f"pvc://hone-store/models/{number}/adapter", "digest": digest}
        spec = {"modelName": "desk", "version": number, "artifacts": [{**adapter, "sizeBytes": 1}]}
        spec["lineage"] = {**lineage, "hyperParameters": {"adapter": {"type": "LoRA", "rank": 16}}}
        namespace.create("ModelVersion", name, spec | ({"approval": {"state": state, "by": "ada"}} if state else {}))
        conditions = [{"type": "Ready", "status": "True"}, *([{"type": "Signed", "status": signed}] if signed else [])]
        told = {"reason": "Tested", "message": "told by the operator", "lastTransitionTime": NOW}
        status = {"conditions": [c | told for c in conditions], "downloadPod": {"image": "hone/trainer:1"}}
        namespace.patch("ModelVersion", name, {"status": status}, "status")

    return create


@pytest.fixture
def serve(namespace, apiserver, monkeypatch):
    """The objects and the lines on stderr of `hone serve`."""
    monkeypatch.setattr("kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", str(apiserver))

    def run(*words, key=("--api-key-secret", "keys")):
        done = CliRunner().invoke(application(), ["serve", *words, *key, "--namespace", namespace.name])
        assert done.exit_code == 0, done.exception
        return list(yaml.safe_load_all(done.stdout)), done.stderr.splitlines()

    return run


def test_a_candidate_is_served_with_a_warning_that_says_how_to_approve_it(namespace, add, serve):
    add(1, "Approved")
    add(2)
    assert serve("desk:1")[1] == []
    objects, warnings = serve("desk:2")
    assert [body["kind"] for body in objects] == ["Deployment", "Service", "NetworkPolicy"]
    assert warnings == [
        "Warning: ModelVersion desk-v2 is not approved: nobody has decided that it may be served. "
        f"To approve it: hone approve desk-v2 --namespace {namespace.name}"
    ]


def test_a_server_without_a_key_is_printed_with_a_warning_that_says_who_may_ask(namespace, add, serve):
    add(1, "Approved")
    [warning] = serve("desk:1", "--allow-from", "a", key=())[1]
    assert warning.startswith(f"Warning: every pod of a, {namespace.name} may ask this server without a key: ")


def test_the_newest_approved_version_of_a_model_is_served(add, serve):
    add(1)
    chose = "Chose ModelVersion desk-v1: the newest version of model desk that is Ready; none is approved."
    assert serve("desk")[1][0] == chose
    add(2, "Approved")
    add(3)
    objects, lines = serve("desk")
    assert objects[0]["metadata"]["annotations"]["hone.dev/model-versions"] == "desk-v2"
    chose = "Chose ModelVersion desk-v2: the newest approved version of model desk; not approved: desk-v3."
    assert lines == [chose]


def test_an_unsigned_version_is_served_with_a_warning_where_others_are_signed(add, serve):
    add(1, "Approved")
    assert serve("desk:1")[1] == [], "nothing shows that this platform signs"
    add(2, "Approved", signed="True")
    add(3, "Approved", signed="False")
    assert serve("desk:2")[1] == []
    objects, warnings = serve("desk:1", "desk:3")
    assert [body["kind"] for body in objects] == ["Deployment", "Service", "NetworkPolicy"]
    unsigned = "is not signed, and this platform signs models"
    assert warnings == [
        f"Warning: ModelVersion desk-v1 {unsigned}: no signature is recorded.",
        f"Warning: ModelVersion desk-v3 {unsigned}: told by the operator",
    ]
