"""Every state of a ModelVersion, decided from what is observed."""

from __future__ import annotations

import pytest
from support.lives.version_life import VERIFIED, Life

from hone_operator.reconcile.core.outcome import Outcome

pytestmark = pytest.mark.pure


@pytest.fixture
def life(world):
    return Life(world)


def test_it_is_ready_only_after_it_was_verified(life, conditions):
    outcome = life.tick()
    assert '"path": "/artifacts/0/models/job-uid/adapter"' in outcome.create[0]["data"]["plan.json"]
    assert conditions(life.status) == {
        "Verified": "False/Verifying",
        "Ready": "False/Verifying",
        "Reconciling": "True/Verifying",
        "Stalled": "False/Verifying",
        "Servable": "True/Loads",
    }
    assert life.status["base"] == "org/model"
    assert (life.status["evalLoss"], life.status["baseEvalLoss"]) == ("2.1", "3.9")
    assert life.status["sizeBytes"] == sum(a["sizeBytes"] for a in life.version["spec"]["artifacts"]) > 0
    assert life.tick(10) == Outcome()
    life.ends("Complete", life.world.dead(0, outcome=VERIFIED))
    life.tick(61)
    assert conditions(life.status)["Ready"] == "True/Verified"
    assert life.status["verifiedAt"] == "2026-01-02T03:05:05Z"
    assert life.status["downloadPod"]["image"] == life.world.platform.trainer.image
    assert "vllmImage" not in life.status["downloadPod"]
    (job,) = life.children
    assert life.tick(62) == Outcome(delete=(job.body,)), "its Job says no more than the status"
    assert life.tick(1000) == Outcome()


def test_an_approval_does_not_verify_again(life, conditions):
    life.tick()
    life.ends("Complete", life.world.dead(0, outcome=VERIFIED))
    life.tick(61)
    life.version["metadata"]["generation"] = 2
    assert life.tick(100).create == ()
    assert life.status["observedGeneration"] == 2
    assert conditions(life.status)["Ready"] == "True/Verified"


def test_a_file_that_differs_is_final(life, conditions):
    life.tick()
    life.ends("Failed", life.world.dead(74, outcome=life.world.failure("ManifestMismatch", "model.safetensors")))
    life.tick(61)
    assert conditions(life.status)["Verified"] == "False/ManifestMismatch"
    assert conditions(life.status)["Stalled"] == "True/ManifestMismatch"
    assert life.tick(10000) == Outcome(), "its Job stays, with the log"
    life.children[-1] = life.world.without_pods(life.children[-1])
    assert life.tick(10001) == Outcome(), "nor when the pod that said so is gone with its node"
    life.children.clear()
    assert life.tick(10002).create, "whoever deletes the Job asks for another attempt"


def test_a_storage_error_is_tried_again(life, conditions):
    life.tick()
    life.ends("Failed", life.world.dead(74, outcome=life.world.failure("StorageError", "EIO")))
    assert life.tick(61).check_again_in == 9
    assert conditions(life.status)["Ready"] == "False/StorageError"
    assert life.tick(70).create
    assert life.status["tries"] == 2


def test_a_missing_claim_is_used_once_it_exists(life, conditions):
    assert life.tick(missing_claim="hone-store").create == ()
    assert conditions(life.status)["Ready"] == "False/PVCNotFound"
    assert life.tick(15).create


def test_files_that_are_on_no_volume_cannot_be_verified(world, conditions):
    life = Life(world, "hf://org/model")
    assert life.tick().create == ()
    assert conditions(life.status)["Stalled"] == "True/NotSupportedYet"


def test_columns_have_four_digits(world):
    life = Life(world)
    life.version["spec"]["evaluation"] = {
        "numbers": [{"name": "loss", "purpose": "HeldOut", "tuned": "2.499912", "base": "3.935037"}]
    }
    life.tick()
    assert (life.status["evalLoss"], life.status["baseEvalLoss"]) == ("2.5", "3.935")
