"""spec.imports of a Model, decided from what is observed."""

from __future__ import annotations

import json
from typing import Any

import pytest
from support.cluster.platforms import changed
from support.lives.decided import Decided

from hone_api.kinds.modelversion import ModelVersionSpec
from hone_api.verdicts.servable import least_lora_rank, verdicts
from hone_operator.desired.core import modelref
from hone_operator.desired.version import mlbom, provenance
from hone_operator.desired.version.deliver import Parcel, deliver
from hone_operator.reconcile.core import references
from hone_operator.reconcile.core.outcome import Outcome, Refusal
from hone_operator.reconcile.core.references import run_of
from hone_operator.reconcile.model.importing import ObservedForImports
from hone_operator.reconcile.model.model import ObservedForModel, reconcile
from hone_operator.reconcile.store import models, store_gc
from hone_operator.reconcile.store.models import that_stay

pytestmark = pytest.mark.pure
ADAPTER = {"uri": "hf://acme/tutor", "base": {"uri": "hf://acme/base"}}
WHOLE = {"uri": "pvc://files/model"}
DIGEST = "sha256:" + "1" * 64

BASE_DIGEST = "sha256:" + "b" * 64


def arrived(form: str = "Adapter", **fields: Any) -> dict[str, Any]:
    """What the pod says at its end."""
    folder = {"Adapter": "adapter", "Full": "full"}[form]
    artifact = {"format": form, "uri": folder, "digest": DIGEST, "sizeBytes": 10}
    base = {"path": "base-models/acme--base/c0ffee", "commit": "c0ffee", "license": "mit", "digest": BASE_DIGEST}
    of_adapter = {"base": base, "adapterType": "LoRA", "adapterRank": 16, "commit": "abc"} if form == "Adapter" else {}
    return {"result": {"kind": "Import", "artifact": artifact, "digest": DIGEST, **of_adapter, **fields}}


class Life(Decided):
    """A Model with imports, reconciled again and again; what is decided is done."""

    def __init__(self, world: Any, *entries: dict[str, Any]) -> None:
        super().__init__(world, "Model", "tutor", {"imports": list(entries)})
        self.platform = world.platform
        self.versions: list[dict[str, Any]] = []
        self.ledger: dict[str, Any] | None = None
        self.datasets: list[dict[str, Any]] = []

    def tick(self, seconds: float = 0, missing: str = "", refusals: tuple[Refusal, ...] = ()) -> Outcome:
        platform = self.platform if self.body["spec"]["imports"] else None
        datasets = {body["metadata"]["name"]: body for body in self.datasets}
        imports = ObservedForImports(platform, self.children, frozenset({missing}), datasets, self.ledger, refusals)
        seen = ObservedForModel(self.versions, imports=imports)
        outcome = self.carry_out(reconcile(self.body, seen, self.world.time(seconds)), refusals)
        if refusals:
            return outcome
        for body in (*outcome.create, *outcome.apply):
            if body["kind"] == "ConfigMap" and body["metadata"]["name"] == "hone-model-versions":
                self.ledger = {**body, "metadata": {**body["metadata"], "resourceVersion": "1", "uid": "l"}}
        created = {"creationTimestamp": "2026-01-01T00:00:00Z"}
        self.versions += [{**b, "metadata": {**b["metadata"], **created}} for b in outcome.record]
        return outcome

    @property
    def entries(self) -> list[dict[str, Any]]:
        entries: list[dict[str, Any]] = self.body["status"]["imports"]
        return entries

    def imported(self) -> None:
        self.tick()
        self.ends("Complete", self.world.dead(0, outcome=arrived()))
        self.tick(61)


def test_a_job_reads_the_files_and_a_version_is_recorded(world: Any, conditions: Any) -> None:
    life = Life(world, ADAPTER)
    outcome = life.tick()
    [plan] = [json.loads(b["data"]["plan.json"]) for b in outcome.create if b["kind"] == "ConfigMap"]
    assert (plan["kind"], plan["source"], plan["namespace"]) == ("Import", ADAPTER, "team")
    assert conditions(life.body["status"])["Imported"] == "False/Importing"
    assert life.tick(1).create == ()
    left_out = {"leftOut": ["training_args.bin"], "leftOutCount": 1}
    life.ends("Complete", world.dead(0, outcome=arrived(**left_out)))
    [record] = life.tick(61).record
    spec = ModelVersionSpec.model_validate(record["spec"])
    assert (record["metadata"]["name"], spec.version, spec.approval.state) == ("tutor-v1", 1, "Candidate")
    lineage = spec.lineage
    assert lineage.job is None
    assert lineage.imported is not None
    assert (lineage.imported.uri, lineage.imported.commit) == ("hf://acme/tutor", "abc")
    assert lineage.imported.digest == DIGEST
    assert (lineage.base_model.uri, lineage.base_model.license) == ("hf://acme/base", "mit")
    assert lineage.base_model.location == "pvc://hone-store/base-models/acme--base/c0ffee"
    assert lineage.base_model.digest == BASE_DIGEST
    assert spec.artifacts[0].uri == f"pvc://hone-store/models/{plan['folder']}/adapter"
    assert conditions(life.body["status"])["Imported"] == "True/Imported"
    [entry] = life.entries
    assert (entry["state"], entry["modelVersion"]) == ("Imported", "tutor-v1")
    assert "training_args.bin (1 in all)" in entry["message"]
    assert life.children == [], "the ModelVersion has all that its Job says"
    life.tick(62)
    assert life.tick(1000) == Outcome()


@pytest.mark.parametrize(
    ("targets", "rank"), [([], 16), (["q_proj", "v_proj"], 16), (["embed_tokens", "q_proj"], None)]
)
def test_what_an_adapter_changes_is_recorded_so_that_servers_can_refuse_it(
    world: Any, targets: list[str], rank: int | None
) -> None:
    life = Life(world, ADAPTER)
    life.tick()
    life.tick(1)
    life.ends("Complete", world.dead(0, outcome=arrived(adapterTargets=targets)))
    [record] = life.tick(61).record
    assert least_lora_rank(ModelVersionSpec.model_validate(record["spec"])) == rank


def test_who_asked_is_recorded_and_changes_nothing_else(world: Any) -> None:
    life = Life(world, ADAPTER)
    life.imported()
    life.body["spec"]["imports"] = [{**ADAPTER, "submittedBy": "lin"}]
    assert life.tick(100).create == ()
    other = Life(world, {**ADAPTER, "submittedBy": "lin"})
    other.imported()
    assert other.versions[0]["spec"]["lineage"]["imported"]["submittedBy"] == "lin"


def test_an_imported_version_is_one_like_any_other(world: Any) -> None:
    life = Life(world, ADAPTER)
    life.imported()
    [record] = life.versions
    spec = ModelVersionSpec.model_validate(record["spec"])
    assert [verdict.loads for verdict in verdicts(spec)] == [True, False, True]
    pinned = modelref.pin("tutor-v1", spec)
    assert (pinned.uri, pinned.adapter_uri) == (spec.lineage.base_model.location, spec.artifacts[0].uri)
    [ancestor] = modelref.ancestors("tutor-v1", spec, pinned)
    assert ancestor.imported == spec.lineage.imported
    statement = provenance.predicate("tutor-v1", "team", spec)
    assert statement["buildDefinition"]["resolvedDependencies"][0]["uri"] == "hf://acme/tutor"
    assert "job" not in statement["buildDefinition"]["internalParameters"]
    assert "hf://acme/tutor" in json.dumps(mlbom.bom("tutor-v1", spec))
    owner = {**record, "metadata": {**record["metadata"], "uid": "v"}}
    target = spec.model_validate({**record["spec"], "deliveries": [{"uri": "s3://models/team"}]}).deliveries
    assert target is not None
    assert len(deliver(owner, spec, Parcel.of(spec, target[0], world.platform), 1, world.platform)) == 2


def test_two_imports_that_end_together_get_two_numbers(world: Any) -> None:
    life = Life(world, ADAPTER, WHOLE)
    life.tick()
    life.ends("Complete", world.dead(0, outcome=arrived()), which=0)
    life.ends("Complete", world.dead(0, outcome=arrived("Full")), which=1)
    first = life.tick(61)
    assert (len(first.record), first.check_again_in) == (1, 0)
    life.tick(62)
    assert [v["metadata"]["name"] for v in life.versions] == ["tutor-v1", "tutor-v2"]
    whole = ModelVersionSpec.model_validate(life.versions[1]["spec"])
    assert (whole.lineage.base_model.uri, whole.artifacts[0].format) == ("pvc://files/model", "Full")


def test_an_operator_that_lost_its_status_or_was_killed_makes_no_second_version(world: Any) -> None:
    life = Life(world, ADAPTER)
    life.tick()
    life.ends("Complete", world.dead(0, outcome=arrived()))
    before, children = dict(life.body), list(life.children)
    life.tick(61)
    life.body, life.children, life.versions = before, children, []  # killed before the record was created
    life.tick(62)
    assert [v["metadata"]["name"] for v in life.versions] == ["tutor-v1"]
    del life.body["status"]
    outcome = life.tick(63)
    assert (outcome.create, outcome.record) == ((), ())
    assert life.entries[0]["modelVersion"] == "tutor-v1"


def test_a_version_that_was_deleted_is_not_imported_again(world: Any) -> None:
    life = Life(world, ADAPTER)
    life.imported()
    life.versions = []
    outcome = life.tick(100)
    assert (outcome.create, life.entries[0]["state"]) == ((), "Imported")


def test_the_same_entry_after_its_version_was_deleted_gets_another_number(world: Any) -> None:
    life = Life(world, ADAPTER)
    life.imported()
    life.versions = []
    life.body["spec"]["imports"] = []
    life.tick(100)
    life.body["spec"]["imports"] = [ADAPTER]
    life.tick(200)
    life.ends("Complete", world.dead(0, outcome=arrived()))
    life.children[-1].body["metadata"]["uid"] = "another"
    life.tick(300)
    assert [v["metadata"]["name"] for v in life.versions] == ["tutor-v2"]


def test_a_source_that_is_unreachable_is_tried_again(world: Any) -> None:
    life = Life(world, ADAPTER)
    life.tick()
    life.ends("Failed", world.dead(74, outcome=world.failure("SourceUnreachable", "no route")))
    assert life.tick(61).check_again_in
    assert (life.entries[0]["state"], life.entries[0]["reason"]) == ("Pending", "SourceUnreachable")
    assert len([b for b in life.tick(1000).create if b["kind"] == "Job"]) == 1
    assert (life.entries[0]["state"], life.entries[0]["tries"]) == ("Importing", 2)


@pytest.mark.parametrize("code", ["UnsafeModel", "BaseMismatch", "SourceTooLarge", "UnsupportedModel"])
def test_what_was_refused_is_final_until_the_entry_changes(world: Any, conditions: Any, code: str) -> None:
    life = Life(world, ADAPTER)
    life.tick()
    life.ends("Failed", world.dead(78, outcome=world.failure(code, "what is wrong")))
    outcome = life.tick(61)
    assert (life.entries[0]["state"], life.entries[0]["reason"]) == ("Failed", code)
    assert conditions(life.body["status"])["Imported"] == f"False/{code}"
    assert [event.type for event in outcome.events] == ["Warning"]
    assert life.tick(10_000).create == ()
    life.body["spec"]["imports"] = [{**ADAPTER, "uri": "hf://acme/tutor@v2"}]
    assert len([b for b in life.tick(10_001).create if b["kind"] == "Job"]) == 1
    assert len(life.children) == 1, "the Job of the entry that is gone went with it"


def test_a_model_is_scored_on_the_rows_of_a_dataset_once_it_is_ready(world: Any) -> None:
    life = Life(world, {**ADAPTER, "evaluation": {"dataset": "rows", "memory": "16Gi"}})
    assert life.tick().create == ()
    assert (life.entries[0]["state"], life.entries[0]["reason"]) == ("Pending", "DatasetNotFound")
    life.datasets = [world.dataset(ready=False)]
    assert life.tick(1).create == ()
    assert life.entries[0]["reason"] == "DatasetNotReady"
    life.datasets = [world.dataset()]
    config, job = life.tick(2).create
    rows = json.loads(config["data"]["plan.json"])["rows"]
    assert (rows["name"], rows["split"], rows["path"]) == (
        "rows",
        "validation",
        f"/store/datasets/{'0' * 64}/validation.jsonl",
    )
    resources = job["spec"]["template"]["spec"]["containers"][0]["resources"]
    assert resources["requests"]["memory"] == "16Gi"
    number = {"name": "loss", "dataset": "rows/validation", "base": "3.9", "tuned": "2.1"}
    life.ends("Complete", world.dead(0, outcome=arrived(numbers=[number])))
    [record] = life.tick(61).record
    assert record["spec"]["evaluation"]["numbers"] == [{**number, "purpose": "HeldOut"}]


def test_a_missing_claim_is_waited_for(world: Any) -> None:
    life = Life(world, WHOLE)
    outcome = life.tick(missing="files")
    assert (outcome.create, outcome.check_again_in) == ((), 15)
    assert "PersistentVolumeClaim files does not exist" in life.entries[0]["message"]


def test_what_the_platform_does_not_allow_is_not_read(world: Any) -> None:
    life = Life(world, {**ADAPTER, "secretName": "theirs"})
    life.platform = changed(world.platform, tenants__secret_prefix="hone-")
    assert life.tick().create == ()
    assert "Secrets for Hone are called hone-" in life.entries[0]["message"]
    life = Life(world, ADAPTER)
    life.platform = changed(world.platform, tenants__models=("hf://ours/*",))
    assert life.tick().create == ()
    assert "spec.imports hf://acme/tutor is not allowed here" in life.entries[0]["message"]


def test_what_the_api_server_refuses_is_reported(world: Any) -> None:
    life = Life(world, WHOLE)
    [job] = [b for b in life.tick().create if b["kind"] == "Job"]
    life.children = []
    del life.body["status"]
    refusal = Refusal("Job", job["metadata"]["name"], "QuotaExceeded", "exceeded quota")
    life.tick(refusals=(refusal,))
    assert (life.entries[0]["state"], life.entries[0]["reason"]) == ("Pending", "QuotaExceeded")


def test_the_pod_writes_its_own_folder_and_a_sweep_spares_it(world: Any) -> None:
    life = Life(world, ADAPTER)
    life.platform = changed(world.platform, store__isolate_runs=True)
    [job] = [b for b in life.tick().create if b["kind"] == "Job"]
    [container] = job["spec"]["template"]["spec"]["containers"]
    run = run_of("Job", job)
    written = {m["subPath"] for m in container["volumeMounts"] if not m.get("readOnly") and m.get("subPath")}
    assert written == {f"models/{run}", "base-models"}
    assert container["command"][3] == "import"
    stays = that_stay([("Job", life.children[0].body)], "hone-store", set())
    assert stays is not None
    assert run in stays


def test_without_imports_there_is_no_condition(world: Any, conditions: Any) -> None:
    life = Life(world)
    life.tick()
    assert "Imported" not in conditions(life.body["status"])
    assert "imports" not in life.body["status"]


def test_what_a_job_reads_of_the_store_stays_until_it_has_ended(world: Any) -> None:
    source, base = "pvc://hone-store/models/run-uid/1/adapter", "pvc://hone-store/base-models/acme--base/c0ffee"
    life = Life(world, {"uri": source, "base": {"uri": base}})
    (job,) = (body for body in life.tick().create if body["kind"] == "Job")
    claim = life.platform.store.claim_name
    assert models.named_models([("Job", job)], claim) == {"run-uid/1"}
    assert "model.run-uid.1" in store_gc.referred_keys([("Job", job)], claim)
    paths = {"/".join(path) for path in references.addresses("Job", job, claim)}
    assert paths == {"models/run-uid/1/adapter", "base-models/acme--base/c0ffee"}


def test_the_next_attempt_finds_a_secret_that_was_missing(world: Any) -> None:
    life = Life(world, {**ADAPTER, "secretName": "hone-hub"})
    life.tick()
    life.ends("Failed", world.dead(78, outcome=world.failure("SecretNotFound", "no Secret hone-hub")))
    assert life.tick(61).check_again_in
    assert (life.entries[0]["state"], life.entries[0]["reason"]) == ("Pending", "SecretNotFound")
    assert len([b for b in life.tick(100_000).create if b["kind"] == "Job"]) == 1


def test_a_person_asks_for_another_attempt_at_what_failed_alone(world: Any) -> None:
    life = Life(world, ADAPTER, WHOLE)
    life.tick()
    life.ends("Failed", world.dead(78, outcome=world.failure("BaseMismatch", "another base")), which=0)
    life.ends("Complete", world.dead(0, outcome=arrived("Full")), which=1)
    life.tick(61)
    life.tick(62)
    life.body["metadata"]["annotations"] = {"hone.dev/retry": "now"}
    assert len([b for b in life.tick(63).create if b["kind"] == "Job"]) == 1
    assert [(entry["state"], entry["tries"]) for entry in life.entries] == [("Importing", 2), ("Imported", 1)]
    assert life.body["status"]["retried"] == "now"


def test_a_request_is_met_once_where_definitions_have_no_place_for_it(world: Any) -> None:
    """An API server with older definitions drops status.retried."""
    life = Life(world, ADAPTER)
    life.tick()
    life.ends("Failed", world.dead(78, outcome=world.failure("UnsafeModel", "pickle")))
    life.tick(61)
    life.body["metadata"]["annotations"] = {"hone.dev/retry": "1"}
    numbers = []
    for seconds in range(100, 104):
        numbers += [b["metadata"]["labels"]["hone.dev/try"] for b in life.tick(seconds).create if b["kind"] == "Job"]
        del life.body["status"]["retried"]
        life.ends("Failed", world.dead(78, outcome=world.failure("UnsafeModel", "pickle")))
    assert numbers == ["2"]
    assert life.entries[0]["state"] == "Failed"


def test_the_command_for_another_attempt_follows_any_number_of_words(world: Any) -> None:
    life = Life(world, *({"uri": f"pvc://files/{number}"} for number in range(3)))
    life.tick()
    for number in range(3):
        life.ends("Failed", world.dead(78, outcome=world.failure("UnsupportedModel", "word " * 300)), which=number)
    life.tick(61)
    (imported,) = [c for c in life.body["status"]["conditions"] if c["type"] == "Imported"]
    assert imported["message"].endswith('hone.dev/retry="$(date +%s)" --overwrite')
    assert len(imported["message"]) <= 4096
