"""The signature of a ModelVersion, decided from what is observed."""

from __future__ import annotations

import json
from typing import Any

import pytest
from support.cluster.desired_objects import PUBLIC_KEY
from support.cluster.platforms import changed, signing
from support.lives.version_life import Life

from hone_operator.reconcile.core.outcome import Outcome

pytestmark = pytest.mark.pure
KEY = "a" * 64
SIGNED = {"result": {"kind": "Sign", "key": KEY}}


def life_of(world: Any, monkeypatch: pytest.MonkeyPatch, **choices: Any) -> Life:
    """A version whose files match and that goes to a bucket, on a platform that signs."""
    asked = {"secret_name": "signing-key", "public_keys": [PUBLIC_KEY], "fingerprints": {KEY}, **choices}
    monkeypatch.setattr(world, "platform", changed(world.platform, signing=signing(**asked)), raising=False)
    life = Life(world)
    life.version["spec"]["deliveries"] = [{"uri": "s3://models/team"}]
    life.verified()
    return life


@pytest.fixture
def strict(world: Any, monkeypatch: pytest.MonkeyPatch) -> Life:
    return life_of(world, monkeypatch, required=True)


def jobs(outcome: Outcome) -> list[dict[str, Any]]:
    return [body for body in outcome.create if body["kind"] == "Job"]


def words(life: Life, type_: str) -> str:
    return next(c["message"] for c in life.status["conditions"] if c["type"] == type_)


def test_nothing_is_signed_where_the_platform_names_no_key(world: Any, conditions: Any) -> None:
    life = Life(world)
    life.verified()
    life.tick(61)
    assert conditions(life.status)["Ready"] == "True/Verified"
    assert "Signed" not in conditions(life.status)
    assert "signature" not in life.status


def test_a_job_of_its_own_signs_before_the_model_is_ready(strict: Life, conditions: Any) -> None:
    outcome = strict.tick(61)
    (job,) = jobs(outcome)
    (plan,) = [json.loads(b["data"]["plan.json"]) for b in outcome.create if b["kind"] == "ConfigMap"]
    assert plan["keyPath"] == "/secrets/signing"
    assert plan["artifacts"] == [{"path": "/artifacts/0", "digest": strict.world.digest, "trusted": [PUBLIC_KEY]}]
    assert job["spec"]["template"]["spec"]["containers"][0]["command"][3] == "sign"
    assert conditions(strict.status)["Ready"] == "False/Signing"
    assert conditions(strict.status)["Verified"] == "True/Verified"
    assert conditions(strict.status)["Delivered"] == "False/Waiting", "nothing unsigned leaves"
    assert jobs(strict.tick(62)) == []
    strict.ends("Complete", strict.world.dead(0, outcome=SIGNED))
    outcome = strict.tick(90)
    assert conditions(strict.status)["Signed"] == "True/Signed"
    assert conditions(strict.status)["Ready"] == "True/Verified"
    assert strict.status["signature"] == {"key": KEY, "signedAt": "2026-01-02T03:05:05Z", "tries": 1}
    (plan,) = [json.loads(b["data"]["plan.json"]) for b in outcome.create if b["kind"] == "ConfigMap"]
    assert (plan["kind"], plan["artifact"]["trusted"]) == ("Deliver", [PUBLIC_KEY])


def test_a_delivery_stops_when_the_signature_no_longer_counts(
    strict: Life, conditions: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    strict.tick(61)
    strict.ends("Complete", strict.world.dead(0, outcome=SIGNED))
    strict.tick(90)
    delivering = strict.children[-1]
    platform = changed(strict.world.platform, signing__fingerprints=frozenset({"b" * 64}))
    monkeypatch.setattr(strict.world, "platform", platform, raising=False)
    strict.status["deliveries"][0]["progress"] = {"arrivedBytes": 1, "totalBytes": 10, "percent": 10, "summary": "10%"}
    strict.status["deliveries"].append({"uri": "s3://other/team", "key": "o", "state": "Delivered", "tries": 7})
    assert delivering.body in strict.tick(100).delete
    assert conditions(strict.status)["Ready"] == "False/Signing"
    assert conditions(strict.status)["Delivered"] == "False/Waiting"
    entry, other = strict.status["deliveries"]
    assert (entry["state"], entry["reason"], entry["tries"]) == ("Pending", "Waiting", 1)
    assert entry["message"].startswith("The model is not signed yet")
    assert "progress" not in entry
    assert other == {"uri": "s3://other/team", "key": "o", "state": "Delivered", "tries": 7}, "what was delivered stays"
    strict.ends("Complete", strict.world.dead(0, outcome={"result": {"kind": "Sign", "key": "b" * 64}}))
    (job,) = jobs(strict.tick(120))
    assert job["metadata"]["labels"]["hone.dev/component"] == "deliver"
    assert job["metadata"]["name"] != delivering.name, "it has a number of its own"


def test_the_statement_is_the_record(strict: Life) -> None:
    strict.version["spec"]["lineage"]["baseModel"]["commit"] = "abc123"
    strict.version["spec"]["lineage"]["image"] = "registry.example/trainer@sha256:" + "7" * 64
    strict.version["spec"]["lineage"]["datasets"] = [
        {"name": "rows", "split": "train", "digest": "sha256:" + "5" * 64, "rows": 10}
    ]
    outcome = strict.tick(61)
    (plan,) = [json.loads(b["data"]["plan.json"]) for b in outcome.create if b["kind"] == "ConfigMap"]
    made = plan["provenance"]
    base, rows, image = made["buildDefinition"]["resolvedDependencies"]
    assert base == {"name": "base", "uri": "hf://org/model", "digest": {"gitCommit": "abc123"}}
    assert rows == {"name": "rows/train", "digest": {"sha256": "5" * 64}, "annotations": {"rows": 10}}
    assert image["digest"] == {"sha256": "7" * 64}
    assert made["runDetails"]["metadata"]["invocationId"] == "job-uid"
    assert made["buildDefinition"]["internalParameters"]["evaluation"][0]["tuned"] == "2.1"


@pytest.mark.parametrize("code", ["SignatureInvalid", "ManifestMismatch"])
def test_an_altered_model_is_refused_for_good(strict: Life, conditions: Any, code: str) -> None:
    strict.tick(61)
    strict.ends("Failed", strict.world.dead(65, outcome=strict.world.failure(code, "weights differ")))
    strict.tick(62)
    assert conditions(strict.status)["Ready"] == f"False/{code}"
    assert conditions(strict.status)["Stalled"] == f"True/{code}"
    assert strict.tick(10_000) == Outcome(), "its Job stays, with the log"
    assert all(b["metadata"]["labels"]["hone.dev/component"] != "deliver" for b in (c.body for c in strict.children))


def test_a_missing_key_is_waited_for(strict: Life, conditions: Any) -> None:
    strict.tick(61)
    failure = strict.world.failure("SecretNotFound", "Secret signing-key does not exist")
    strict.ends("Failed", strict.world.dead(78, outcome=failure))
    assert strict.tick(62).check_again_in
    assert conditions(strict.status)["Signed"] == "False/SecretNotFound"
    assert "Attempt 2 starts at" in words(strict, "Signed")
    assert conditions(strict.status)["Stalled"][:5] == "False"
    assert len(jobs(strict.tick(10_000))) == 1
    strict.ends("Complete", strict.world.dead(0, outcome=SIGNED))
    strict.tick(10_100)
    assert conditions(strict.status)["Ready"] == "True/Verified"


def test_a_signature_by_a_key_that_no_longer_counts_is_made_again(
    strict: Life, conditions: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    strict.version["spec"]["deliveries"] = []
    strict.tick(61)
    strict.ends("Complete", strict.world.dead(0, outcome=SIGNED))
    strict.tick(90)
    platform = changed(strict.world.platform, signing__fingerprints=frozenset({"b" * 64}))
    monkeypatch.setattr(strict.world, "platform", platform, raising=False)
    assert len(jobs(strict.tick(91))) == 1
    assert conditions(strict.status)["Ready"] == "False/Signing"


def test_where_signatures_are_not_required_a_failure_only_shows(
    world: Any, conditions: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    life = life_of(world, monkeypatch, required=False)
    life.tick(61)
    assert conditions(life.status)["Ready"] == "True/Verified", "it can be used meanwhile"
    assert conditions(life.status)["Delivered"] == "False/Waiting", "but not without what it will have"
    life.ends("Failed", life.world.dead(65, outcome=life.world.failure("SignatureInvalid", "another key")))
    outcome = life.tick(62)
    assert conditions(life.status)["Signed"] == "False/SignatureInvalid"
    (plan,) = [json.loads(b["data"]["plan.json"]) for b in outcome.create if b["kind"] == "ConfigMap"]
    assert (plan["kind"], plan["artifact"].get("trusted")) == ("Deliver", None)


def test_a_version_that_an_earlier_build_signed_without_a_key_is_signed_by_the_key(strict: Life) -> None:
    identity = {"subject": "https://kubernetes.io/x", "issuer": "https://issuer.test"}
    strict.status["signature"] = {"identity": identity, "trust": "0" * 64}
    assert len(jobs(strict.tick(61))) == 1
    strict.ends("Complete", strict.world.dead(0, outcome=SIGNED))
    strict.tick(90)
    assert strict.status["signature"]["key"] == KEY
    assert "identity" not in strict.status["signature"]


def test_an_invalid_signature_is_looked_at_again_when_its_job_is_deleted(strict: Life, conditions: Any) -> None:
    strict.tick(61)
    refusal = strict.world.failure("SignatureInvalid", "another key")
    strict.ends("Failed", strict.world.dead(65, outcome=refusal))
    strict.tick(62)
    assert jobs(strict.tick(100_000)) == []
    strict.children[-1] = strict.world.without_pods(strict.children[-1])
    assert jobs(strict.tick(100_000)) == [], "nor when the pod that said so is gone with its node"
    assert conditions(strict.status)["Signed"] == "False/SignatureInvalid"
    strict.children = [c for c in strict.children if c.body["metadata"]["labels"]["hone.dev/component"] != "sign"]
    assert len(jobs(strict.tick(100_001))) == 1


def test_a_job_that_only_compares_gets_no_key_and_writes_nothing(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    life = life_of(world, monkeypatch, secret_name="")
    outcome = life.tick(61)
    (job,) = jobs(outcome)
    mounts = job["spec"]["template"]["spec"]["containers"][0]["volumeMounts"]
    assert all(m.get("readOnly") for m in mounts if m["mountPath"].startswith("/artifacts"))
    assert "signing" not in json.dumps(job["spec"]["template"]["spec"].get("volumes"))
