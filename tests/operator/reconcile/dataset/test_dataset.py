"""Every state of a Dataset, decided from what is observed."""

from __future__ import annotations

import json
from typing import Any

import pytest
from support.cluster.desired_objects import all_containers
from support.cluster.platforms import changed
from support.lives.dataset_life import RESULT, Life, plan_of, ready
from support.lives.versions import version_spec

from hone_api.contract.plan_reading import parse_plan
from hone_api.words.rowcodes import ROW_CODES
from hone_operator.reconcile.core.outcome import Outcome, Refusal
from hone_operator.reconcile.dataset.dataset_references import MOST_COMPARED

pytestmark = pytest.mark.pure


@pytest.fixture
def life(world):
    return Life(world)


def test_it_is_materialised_once(life, conditions):
    outcome = life.tick()
    assert [b["kind"] for b in outcome.create] == ["ConfigMap", "Job"]
    assert conditions(life.status)["Ready"] == "False/Materializing"
    assert life.tick(10) == Outcome()
    life.ends("Complete", life.world.dead(0, outcome={"result": RESULT}))
    outcome = life.tick(61)
    assert conditions(life.status)["Ready"] == "True/Materialized"
    assert life.status["uri"] == "pvc://hone-store/datasets/" + "0" * 64
    assert life.status["errors"] == [{**RESULT["errors"][0], "hint": ROW_CODES["MissingColumn"].hint}]
    assert life.status["curation"] == RESULT["curation"]
    assert life.status["summary"] == RESULT["summary"]
    assert life.status["advice"] == RESULT["advice"]
    assert life.status["report"] == f"pvc://hone-store/datasets/{'0' * 64}/report.html"
    assert [e.reason for e in outcome.events] == ["Materialized"]
    life.children.clear()
    assert life.tick(1000) == Outcome()


def test_status_quotes_no_row_where_it_may_not(world):
    """Pods get the setting; what an older pod has left is also hidden."""
    world.platform = changed(world.platform, privacy__rows_in_status=False)
    life = Life(world)
    outcome = life.tick()
    reader, publisher = all_containers(outcome.create[1])
    assert {"name": "HONE_ROWS_IN_STATUS", "value": "false"} in reader["env"]
    assert {"name": "HONE_ROWS_IN_STATUS", "value": "false"} in publisher["env"]
    errors = [{**RESULT["errors"][0], "example": "row 4: private"}]
    life.ends("Complete", world.dead(0, outcome={"result": {**RESULT, "errors": errors}}))
    life.tick(61)
    assert life.status["errors"][0]["count"] == 1
    assert "example" not in life.status["errors"][0]
    assert "example" not in life.status["curation"][0]


def test_the_plan_says_what_to_curate(world):
    wanted = {"deduplicate": "Near", "nearDuplicates": {"similarity": "70%"}}
    config_map, _ = Life(world, curation=wanted, splits={"nearDuplicates": "Group"}).tick().create
    plan = parse_plan(config_map["data"]["plan.json"])
    assert plan.curation.deduplicate == "Near"
    assert plan.curation.near_duplicates.similarity == "70%"
    assert plan.splits.near_duplicates == "Group"


def test_it_waits_for_the_sets_that_it_must_not_contain(world, conditions):
    contamination = {"datasets": [{"name": "exam"}, {"name": "quiz", "split": "test"}]}
    life = Life(world, curation={"contamination": contamination})
    assert life.tick().create == ()
    assert conditions(life.status)["Ready"] == "False/DatasetNotFound"
    exam = ready("exam", train=10, test=5, validation=0)
    assert life.tick(10, datasets={"exam": exam, "quiz": ready("quiz", train=1)}).create == ()
    assert conditions(life.status)["Ready"] == "False/SplitNotFound"
    unready = {**exam, "status": {}}
    assert life.tick(20, datasets={"exam": unready, "quiz": ready("quiz", test=1)}).create == ()
    assert conditions(life.status)["Ready"] == "False/DatasetNotReady"
    plan = plan_of(life.tick(30, datasets={"exam": exam, "quiz": ready("quiz", test=1)}))
    folder = "/store/datasets/" + "1" * 64
    assert [(s.name, s.path) for s in plan.evaluation_sets] == [
        ("exam", f"{folder}/test.jsonl"),
        ("exam", f"{folder}/train.jsonl"),
        ("quiz", f"{folder}/test.jsonl"),
    ]
    assert plan.curation.contamination.ngram == 8


def test_a_set_cannot_be_kept_out_of_itself(world, conditions):
    life = Life(world, curation={"contamination": {"datasets": [{"name": "rows"}]}})
    assert life.tick().create == ()
    assert conditions(life.status)["Stalled"] == "True/CircularReference"
    assert "rows is made of itself" in life.status["failure"]["message"]


def test_rows_of_other_datasets_are_kept_out(world, conditions):
    """By content; those that are not named are compared for the report alone, the ones read last if they are many."""
    against = [{"name": "crawl"}, {"name": "exam", "split": "test"}]
    life = Life(world, curation={"deduplicateAgainst": against})
    assert life.tick().create == ()
    assert conditions(life.status)["Ready"] == "False/DatasetNotFound"
    datasets = {
        "crawl": ready("crawl", train=9),
        "exam": ready("exam", test=5, train=1),
        "new": {**ready("new"), "status": {}},
    }
    plan = plan_of(life.tick(10, datasets=datasets))
    folder = "/store/datasets/" + "1" * 64
    assert [(s.name, s.path) for s in plan.deduplicate_against] == [
        ("crawl", f"{folder}/train.jsonl"),
        ("exam", f"{folder}/test.jsonl"),
    ]
    assert sorted((s.name, s.split, s.digest) for s in plan.other_datasets) == [
        ("crawl", "train", "sha256:" + "1" * 64),
        ("exam", "test", "sha256:" + "1" * 64),
        ("exam", "train", "sha256:" + "1" * 64),
    ]
    assert plan.curation.deduplicate_against[1].split == "test"


def test_of_very_many_datasets_the_ones_read_last_are_compared(world):
    many = {name: ready(name, train=1) for name in (f"d{number}" for number in range(MOST_COMPARED + 9))}
    for number, other in enumerate(many.values()):
        other["status"]["readTime"] = f"2026-01-01T{number // 60:02}:{number % 60:02}:00Z"
    config_map, _ = Life(world).tick(datasets=many).create
    named = [one.name for one in parse_plan(config_map["data"]["plan.json"]).other_datasets]
    assert named == [f"d{number}" for number in reversed(range(9, MOST_COMPARED + 9))]
    assert len(json.dumps(config_map)) < 100_000


@pytest.mark.parametrize("around", [["exam"], ["exam", "crawl"], ["exam", "crawl", "mix"]])
def test_a_circle_of_datasets_is_refused(world, conditions, around):
    """Each would wait for the next one, or be made again for ever."""
    names = {name: [{"name": other}] for name, other in zip(around, [*around[1:], "rows"], strict=True)}
    specs = [{"curation": {"contamination": {"datasets": one}}} for one in names.values()]
    specs[-1] = {"curation": {"deduplicateAgainst": [*names.values()][-1]}}
    datasets = {name: {**ready(name, train=1), "spec": spec} for name, spec in zip(around, specs, strict=True)}
    life = Life(world, curation={"deduplicateAgainst": [{"name": "exam"}]})
    assert life.tick(datasets=datasets).create == ()
    assert conditions(life.status)["Stalled"] == "True/CircularReference"
    assert " → ".join(["rows", *around, "rows"]) in life.status["failure"]["message"]
    datasets[around[-1]]["spec"] = {}
    assert life.tick(10, datasets=datasets).create


def test_it_waits_for_the_model_that_scores_its_rows(world, conditions):
    scores = [{"scorer": "Classifier", "modelVersion": "judge-v1", "minimum": "70%"}]
    life = Life(world, curation={"scores": scores})
    assert life.tick().create == ()
    assert conditions(life.status)["Ready"] == "False/ModelVersionNotFound"
    judge = reward_model("judge-v1")
    assert life.tick(10, versions={"judge-v1": judge | {"status": {}}}).create == ()
    assert conditions(life.status)["Ready"] == "False/WaitingForModelVersion"
    config_map, job = life.tick(20, versions={"judge-v1": judge}).create
    plan = parse_plan(config_map["data"]["plan.json"])
    assert plan.classifiers["judge-v1"].path == "/models/models/judge/full"
    mounts = all_containers(job)[0]["volumeMounts"]
    assert {"mountPath": "/models/models", "readOnly": True}.items() <= next(
        m for m in mounts if m["mountPath"].startswith("/models")
    ).items()


def reward_model(name: str) -> dict[str, Any]:
    digest = "sha256:" + "2" * 64
    pairs = {"name": "pairs", "split": "train", "digest": digest}
    spec = version_spec("Full", "pvc://models/judge/full", "2", model="judge", datasets=[pairs], method="Reward")
    status = {"conditions": [{"type": "Ready", "status": "True", "reason": "Verified", "message": ""}]}
    return {"metadata": {"name": name}, "spec": spec, "status": status}


def test_a_path_that_leaves_its_volume_is_refused(world, conditions):
    life = Life(world, source={"uri": "pvc://data/../secret"})
    assert life.tick().create == ()
    assert conditions(life.status)["Accepted"] == "False/InvalidValue"


@pytest.mark.parametrize(
    ("missing", "reason"), [("ConfigMap/answers", "ConfigMapNotFound"), ("PersistentVolumeClaim/d", "PVCNotFound")]
)
def test_a_missing_source_object_is_used_once_it_exists(life, conditions, missing, reason):
    outcome = life.tick(missing=missing)
    assert outcome.create == ()
    assert outcome.check_again_in == 15
    assert conditions(life.status)["Ready"] == f"False/{reason}"
    assert life.tick(15).create


def test_bad_rows_are_reported_with_counts_and_retried(life, conditions):
    first = life.tick().create[1]["metadata"]["name"]
    bad = {**RESULT, "digest": None, "rejected": 7}
    failure = life.world.failure("TooManyBadRows", "7 of 10 rows")
    life.ends("Failed", life.world.dead(65, outcome={**failure, "result": bad}), seconds=60)
    outcome = life.tick(61)
    assert conditions(life.status)["Ready"] == "False/TooManyBadRows"
    assert conditions(life.status)["Stalled"].startswith("False")
    assert life.status["rejected"] == 7
    assert life.status["errors"][0]["rows"] == [4]
    assert life.status["failure"]["code"] == "TooManyBadRows"
    assert outcome.check_again_in == 9
    outcome = life.tick(70)
    assert [b["metadata"]["name"] for b in outcome.delete] == [first]
    assert life.status["tries"] == 2
    assert conditions(life.status)["Ready"] == "False/TooManyBadRows"
    assert life.tick(71) == Outcome()


@pytest.mark.parametrize("code", ["TooManyBadRows", "SecretNotFound", "SourceUnreachable"])
def test_the_reason_lasts_until_the_next_attempt_has_an_answer(life, conditions, code):
    life.tick()
    failed = life.world.dead(65, outcome=life.world.failure(code, "the true reason"))
    life.ends("Failed", failed, seconds=60)
    said, events = [], []
    for seconds, pod in ((61, None), (71, None), (72, life.world.unscheduled()), (80, life.world.pod())):
        if pod:
            life.children[-1] = life.world.child(life.children[-1].body, pod)
        events += [e.reason for e in life.tick(seconds).events]
        assert conditions(life.status)["Ready"] == f"False/{code}", seconds
        said.append(next(c["message"] for c in life.status["conditions"] if c["type"] == "Ready"))
    assert all(words.startswith("the true reason. ") for words in said)
    assert "Attempt 2 starts at 2026-01-02T03:05:15Z." in said[0]
    assert said[1].endswith("Attempt 2 is under way.")
    assert "Attempt 2 waits: " in said[2]
    assert said[3] == said[1]
    assert events == [code], "told once"
    life.ends("Complete", life.world.dead(0, outcome={"result": RESULT}), seconds=90)
    life.tick(91)
    assert conditions(life.status)["Ready"] == "True/Materialized"


def test_the_pause_between_tries_grows_to_five_minutes(life):
    life.tick()
    waits, seconds = [], 0.0
    for _ in range(7):
        life.ends("Failed", life.world.dead(74, outcome=life.world.failure("SourceUnreachable")), seconds=seconds)
        waits.append(life.tick(seconds).check_again_in)
        seconds += waits[-1]
        life.tick(seconds)
    assert waits == [10, 20, 40, 80, 160, 300, 300]


def test_what_a_retry_cannot_fix_stalls_until_the_spec_changes(life, conditions):
    life.tick()
    life.ends("Failed", life.world.dead(78, outcome=life.world.failure("SourceRefused")))
    assert life.tick(61).create == ()
    assert conditions(life.status)["Stalled"] == "True/SourceRefused"
    assert life.tick(10000) == Outcome()
    life.children[-1] = life.world.without_pods(life.children[-1])
    assert life.tick(10000) == Outcome(), "nor when the pod that said so is gone with its node"
    life.dataset["metadata"]["generation"] = 2
    outcome = life.tick(10001)
    assert outcome.create
    assert len(outcome.delete) == 1
    assert life.status["tries"] == 1
    assert conditions(life.status)["Ready"] == "False/Materializing"


def test_the_reason_of_a_failure_outlives_its_pod(life, conditions):
    life.tick()
    life.ends("Failed", life.world.dead(74, outcome=life.world.failure("SourceUnreachable", "no route")))
    life.tick(61)
    life.children[-1] = life.world.without_pods(life.children[-1], exit_code=74)
    assert life.tick(62) == Outcome(check_again_in=8)
    assert conditions(life.status)["Ready"] == "False/SourceUnreachable"
    assert life.tick(70).create


def test_a_person_asks_for_another_attempt_by_deleting_the_job(life):
    life.tick()
    life.ends("Failed", life.world.dead(78, outcome=life.world.failure("SourceRefused")))
    life.tick(61)
    life.children.clear()
    assert life.tick(62).create
    assert life.status["tries"] == 2


def test_an_edit_of_a_ready_dataset_materialises_again(life, conditions):
    life.tick()
    life.ends("Complete", life.world.dead(0, outcome={"result": RESULT}))
    life.tick(61)
    life.dataset["metadata"]["generation"] = 2
    outcome = life.tick(100)
    assert outcome.create[1]["metadata"]["labels"]["hone.dev/generation"] == "2"
    assert conditions(life.status)["Ready"] == "False/Materializing"


def test_suspended_nothing_starts(world, conditions):
    life = Life(world, suspend=True)
    assert life.tick().create == ()
    assert conditions(life.status)["Ready"] == "False/Suspended"
    assert life.status["uploadPod"]["image"] == world.platform.trainer.image
    del life.dataset["spec"]["suspend"]
    life.dataset["metadata"]["generation"] = 2
    life.tick()
    assert "uploadPod" not in life.status


def test_a_pod_that_waits_is_reported(life, conditions):
    life.tick()
    life.children[-1] = life.world.child(life.children[-1].body, life.world.unscheduled("0/1 nodes"))
    life.tick(5)
    assert conditions(life.status)["Ready"] == "False/Unschedulable"


def test_a_lost_update_of_the_scheduler_is_not_a_state(life, conditions):
    """It tries again by itself, a moment later."""
    life.tick()
    before = conditions(life.status)["Ready"]
    pod = life.world.unscheduled('Operation cannot be fulfilled on pods/binding "x": the object has been modified')
    pod["status"]["conditions"][0]["reason"] = "SchedulerError"
    life.children[-1] = life.world.child(life.children[-1].body, pod)
    life.tick(5)
    assert conditions(life.status)["Ready"] == before


@pytest.mark.faults("O16")
def test_an_image_that_cannot_be_pulled_stalls_after_the_start_timeout(life, conditions):
    life.tick()
    life.children[-1] = life.world.child(life.children[-1].body, life.world.waiting("ImagePullBackOff", "no"))
    life.tick(5)
    assert conditions(life.status)["Ready"] == "False/ImagePullBackOff"
    outcome = life.tick(901)
    assert conditions(life.status)["Stalled"] == "True/ImagePullFailed"
    assert len(outcome.delete) == 1


def test_a_refused_job_is_reported(life, conditions):
    refusal = Refusal("Job", "rows-data-x", "QuotaExceeded", "exceeded quota")
    life.tick(refusals=(refusal,))
    assert conditions(life.status)["Ready"] == "False/QuotaExceeded"
    assert life.tick(15).create


MIXTURE = [{"name": "own", "weight": "80%"}, {"name": "general", "weight": "20%"}]


def test_a_mixture_waits_for_its_parts_and_pins_them(world, conditions):
    life = Life(world, source=None, mixture=MIXTURE, mixtureBy="Tokens", mixtureTotal=5000, splits={"seed": 7})
    del life.dataset["spec"]["source"]
    assert life.tick().create == ()
    assert conditions(life.status)["Ready"] == "False/DatasetNotFound"
    own, general = ready("own", train=90, validation=10), ready("general", train=500)
    assert life.tick(10, datasets={"own": own, "general": {**general, "status": {}}}).create == ()
    assert conditions(life.status)["Ready"] == "False/DatasetNotReady"
    exam = ready("exam", test=5)
    config_map, job = life.tick(20, datasets={"own": own, "general": general, "exam": exam}).create
    plan = parse_plan(config_map["data"]["plan.json"])
    assert [(one.name, one.split) for one in plan.other_datasets] == [("exam", "test")], (
        "its parts share rows by intent"
    )
    assert (plan.kind, plan.by, plan.total, plan.seed) == ("Mix", "Tokens", 5000, 7)
    folder = "/store/datasets/" + "1" * 64
    assert [(part.name, part.path, part.share) for part in plan.parts] == [
        ("own", f"{folder}/train.jsonl", "80%"),
        ("own", f"{folder}/validation.jsonl", "80%"),
        ("general", f"{folder}/train.jsonl", "20%"),
    ]
    pod = job["spec"]["template"]["spec"]
    assert [container["command"][3] for container in all_containers(job)] == ["mix", "publish"]
    assert [v["name"] for v in pod["volumes"]] == ["plan", "store", "tmp"]
    use = {"split": "train", "rows": 80, "tokens": 900, "rowShare": "80.0%", "tokenShare": "81.0%", "passes": "1.00"}
    used = [{"name": "own", "digest": "sha256:" + "1" * 64, **use}]
    life.ends("Complete", world.dead(0, outcome={"result": {**RESULT, "mixture": used}}))
    life.tick(80, datasets={"own": own, "general": general})
    assert conditions(life.status)["Ready"] == "True/Materialized"
    assert life.status["mixture"] == used


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ({"mixture": [{"name": "a", "weight": "50%"}]}, "the weights are 50% together, not 100%"),
        ({"mixture": [{"name": "a", "weight": "50%"}] * 2}, "names a Dataset twice"),
        ({"mixture": MIXTURE, "splits": {"validation": "10%"}}, "a mixture keeps the splits of its parts"),
        ({"mixture": MIXTURE, "format": "Chat"}, "takes its parts as they are"),
        ({"mixture": MIXTURE, "curation": {"deduplicate": "Exact"}}, "takes its parts as they are"),
        ({"mixture": MIXTURE, "curation": {"deduplicateAgainst": [{"name": "exam"}]}}, "takes its parts as they are"),
        (
            {"mixture": MIXTURE, "curation": {"contamination": {"datasets": [{"name": "exam"}]}}},
            "takes its parts as they are",
        ),
        ({"mixture": [{"name": "rows", "weight": "100%"}]}, "is made of itself"),
    ],
)
def test_a_mixture_that_cannot_be_is_refused(world, conditions, spec, words):
    life = Life(world, **spec)
    del life.dataset["spec"]["source"]
    assert life.tick().create == ()
    code = "CircularReference" if "itself" in words else "ConflictingFields"
    assert conditions(life.status)["Stalled"] == f"True/{code}"
    assert words in life.status["failure"]["message"]


def test_the_plan_of_a_new_revision_names_what_it_replaces(life):
    life.tick()
    life.ends("Complete", life.world.dead(0, outcome={"result": RESULT}))
    life.tick(61)
    life.dataset["metadata"]["generation"] = 2
    assert plan_of(life.tick(100)).previous == RESULT["digest"]
