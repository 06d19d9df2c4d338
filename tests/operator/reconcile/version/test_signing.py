"""The signature of a ModelVersion, decided from what is observed."""

from __future__ import annotations

import json
from typing import Any

import pytest
from support.cluster.desired_objects import PUBLIC_KEY
from support.cluster.platforms import changed, signing
from support.lives.version_life import Life

from hone_api.blocks.signing import Identity, Keyless
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


SUBJECT = "https://kubernetes.io/namespaces/team/serviceaccounts/signer"
SIGNER = Identity(subject=SUBJECT, issuer="https://issuer.test")
OTHER = Identity(subject=SUBJECT, issuer="https://other.test")
KEYLESS = Keyless(trust_config="{}", identities=[SIGNER])
WITHOUT_KEY = {"secret_name": "", "public_keys": [], "fingerprints": frozenset(), "service_account": "signer"}


def by(identity: Identity, trust: str = KEYLESS.trust) -> dict[str, Any]:
    return {"result": {"kind": "Sign", "identity": identity.to_json(), "trust": trust}}


@pytest.fixture
def without_key(world: Any, monkeypatch: pytest.MonkeyPatch) -> Life:
    return life_of(world, monkeypatch, **WITHOUT_KEY, keyless=KEYLESS, required=True)


def test_an_identity_signs_with_a_token_for_nobody_else(without_key: Life, conditions: Any) -> None:
    outcome = without_key.tick(61)
    (plan,) = [json.loads(b["data"]["plan.json"]) for b in outcome.create if b["kind"] == "ConfigMap"]
    (artifact,) = plan["artifacts"]
    assert (plan["tokenPath"], "keyPath" in plan) == ("/secrets/identity/token", False)
    assert artifact["trusted"] == [KEYLESS.to_json()]
    spec = jobs(outcome)[0]["spec"]["template"]["spec"]
    assert spec["serviceAccountName"] == "signer"
    tokens = [s["serviceAccountToken"] for v in spec["volumes"] for s in v.get("projected", {}).get("sources", ())]
    assert [each["audience"] for each in tokens] == ["sigstore"]
    assert not any(m.get("readOnly") for m in spec["containers"][0]["volumeMounts"] if "artifacts" in m["mountPath"])
    without_key.ends("Complete", without_key.world.dead(0, outcome=by(SIGNER)))
    outcome = without_key.tick(90)
    assert conditions(without_key.status)["Signed"] == "True/Signed"
    assert conditions(without_key.status)["Ready"] == "True/Verified"
    status = without_key.status["signature"]
    assert (status["identity"], status["trust"]) == (SIGNER.to_json(), KEYLESS.trust)
    (plan,) = [json.loads(b["data"]["plan.json"]) for b in outcome.create if b["kind"] == "ConfigMap"]
    assert (plan["kind"], plan["artifact"]["trusted"]) == ("Deliver", [KEYLESS.to_json()])
    assert "signer" not in json.dumps(jobs(outcome)[0]["spec"]["template"]["spec"]), "only what signs has the identity"
    assert jobs(without_key.tick(91)) == []


@pytest.mark.parametrize(
    "keyless",
    [
        None,
        KEYLESS.model_copy(update={"identities": [OTHER]}),
        KEYLESS.model_copy(update={"trust_config": '{"other": 1}'}),
    ],
    ids=["none", "another identity", "another authority"],
)
def test_an_identity_that_no_longer_counts_signs_nothing(
    without_key: Life, conditions: Any, monkeypatch: pytest.MonkeyPatch, keyless: Keyless | None
) -> None:
    without_key.version["spec"]["deliveries"] = []
    without_key.tick(61)
    without_key.ends("Complete", without_key.world.dead(0, outcome=by(SIGNER)))
    without_key.tick(90)
    key: dict[str, Any] = {"service_account": "signer"} if keyless else {"public_keys": [PUBLIC_KEY]}
    platform = changed(without_key.world.platform, signing=signing(keyless, required=True, **key))
    monkeypatch.setattr(without_key.world, "platform", platform, raising=False)
    assert len(jobs(without_key.tick(91))) == 1
    assert conditions(without_key.status)["Ready"] == "False/Signing"


@pytest.mark.parametrize("outcome", [by(OTHER), by(SIGNER, "0" * 64), SIGNED], ids=["identity", "authority", "key"])
def test_what_a_job_confirmed_counts_only_if_it_still_does(
    without_key: Life, conditions: Any, outcome: dict[str, Any]
) -> None:
    without_key.tick(61)
    without_key.ends("Complete", without_key.world.dead(0, outcome=outcome))
    assert len(jobs(without_key.tick(62))) == 1
    assert conditions(without_key.status)["Signed"] == "False/Signing"


@pytest.mark.parametrize("code", ["SigningIdentityRefused", "SigningServerUnreachable", "SigningTrustUnusable"])
def test_what_keeps_an_identity_from_signing_is_tried_again(without_key: Life, conditions: Any, code: str) -> None:
    without_key.tick(61)
    without_key.ends("Failed", without_key.world.dead(78, outcome=without_key.world.failure(code, "Fulcio said no")))
    assert without_key.tick(62).check_again_in
    assert conditions(without_key.status)["Signed"] == f"False/{code}"
    assert conditions(without_key.status)["Ready"] == f"False/{code}"
    assert len(jobs(without_key.tick(10_000))) == 1


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
