"""The address of encoded rows: the same for the same tokens, another where they may differ, none where nobody knows."""

import re
from pathlib import Path
from typing import Any

import pytest

from hone_api.contract import encoding
from hone_api.methods import METHODS
from hone_api.plan import TrainingPlan

pytestmark = pytest.mark.pure
ROOT = Path(__file__).resolve().parents[3]
ROWS = {"name": "rows", "path": "rows.jsonl", "digest": "sha256:" + "a" * 64}
BLOCKS: dict[str, dict[str, Any]] = {
    "PPO": {"ppo": {"rewardModelVersion": "reward-v1"}},
    "GRPO": {"grpo": {"rewards": [{"type": "Format", "weight": "1"}]}},
    "Distillation": {"distillation": {"teacherModelVersion": "teacher-v1", "level": "Logits"}},
}
LIBRARIES = {"jinja2": "3.1.6", "tokenizers": "0.23.3", "transformers": "5.24.0"}
"""With which ENCODER_VERSION 6 was made."""


def plan(method: str = "SFT", **fields: Any) -> TrainingPlan:
    body = {
        "kind": "Training",
        "run": "tutor-1",
        "method": method,
        "modelPath": "model",
        "modelUri": "hf://owner/model",
        "modelDigest": "sha256:" + "b" * 64,
        "datasets": [ROWS],
        "output": {"modelName": "tutor"},
        "workPath": "work",
        "outputPath": "out",
        **BLOCKS.get(method, {}),
        **fields,
    }
    return TrainingPlan.model_validate(body)


def key(method: str = "SFT", **fields: Any) -> str | None:
    made = plan(method, **fields)
    return encoding.key(made, made.datasets[0])


@pytest.mark.parametrize("method", METHODS)
def test_every_method_has_an_address_that_paths_and_training_do_not_change(method: str) -> None:
    first = key(method)
    assert first is not None
    assert re.fullmatch(r"[0-9a-f]{40}", first)
    moved = {**ROWS, "path": "elsewhere/rows.jsonl", "name": "other", "share": "50%"}
    options = {"learningRate": "1e-4", "batchSize": 64, "seed": 7, "packing": True}
    other = key(method, datasets=[moved], training=options, modelPath="there", run="next", workPath="w", nodes=2)
    assert other == first


@pytest.mark.parametrize(
    "change",
    [
        {"datasets": [{**ROWS, "digest": "sha256:" + "c" * 64}]},
        {"datasets": [{**ROWS, "split": "validation"}]},
        {"modelDigest": "sha256:" + "d" * 64},
        {"modelAdapter": {"path": "adapter", "digest": "sha256:" + "e" * 64}},
        {"training": {"maxLength": 128}},
        {"training": {"truncation": "Truncate"}},
        {"sft": {"trainOn": "LastAssistant"}},
        {"templateDate": "2026-11-27"},
        {"method": "DAPT"},
        {"method": "DPO"},
        {"method": "KTO"},
        {"method": "PPO", **BLOCKS["PPO"]},
    ],
    ids=str,
)
def test_what_the_tokens_depend_on_changes_it(change: dict[str, Any]) -> None:
    fields = {"method": "SFT", **change}
    assert key(fields.pop("method"), **fields) not in (key(), None)


def test_text_without_a_template_has_no_date() -> None:
    assert key("DAPT", templateDate="2026-11-27") == key("DAPT")
    assert key(templateDate="2026-11-27") != key(templateDate="2026-11-28")


def test_the_room_for_an_answer_decides_which_prompts_fit() -> None:
    def of(length: int) -> str | None:
        return key("PPO", ppo={"rewardModelVersion": "reward-v1", "maxCompletionLength": length})

    assert of(64) == of(64) != of(65)


def test_methods_that_encode_alike_share_it() -> None:
    assert key("DPO") == key("ORPO") == key("Reward")
    assert key("Distillation") == key("SFT")


def test_a_model_is_known_by_its_digest_or_commit() -> None:
    assert key(modelDigest=None, modelCommit="1" * 40) not in (key(), None)
    assert key(modelDigest=None) is None, "of a model on a user's volume nobody knows what it is"
    made = plan(modelDigest=None)
    assert encoding.key(made, made.datasets[0], "files-read-on-a-laptop") is not None


def test_rows_that_are_not_known_before_the_run_have_none() -> None:
    assert key(datasets=[{**ROWS, "digest": "sha256:" + "0" * 64}]) is None
    assert key("Distillation", distillation={"teacherModelVersion": "teacher-v1", "level": "Sequence"}) is None


def test_all_keys_of_a_plan_are_each_once() -> None:
    held_out = {**ROWS, "split": "validation", "path": "validation.jsonl"}
    made = plan(datasets=[{**ROWS, "share": "50%"}, {**ROWS, "share": "50%"}], evaluationDatasets=[held_out])
    assert [source.split for source in encoding.splits(made)] == ["train", "validation"]
    found = encoding.keys(made)
    assert found is not None
    assert found == [encoding.key(made, source) for source in encoding.splits(made)]
    assert encoding.keys(plan(evaluationDatasets=[{**held_out, "digest": "sha256:" + "0" * 64}])) is None


def test_one_digest_covers_all_folders_in_any_order() -> None:
    one, two = {"k1": "sha256:" + "1" * 64}, {"k2": "sha256:" + "2" * 64}
    assert encoding.digest(one | two) == encoding.digest(two | one) != encoding.digest(one)


def test_a_new_library_that_renders_or_tokenises_wants_a_look_at_the_version() -> None:
    lock = (ROOT / "requirements" / "trainer.txt").read_text()
    found = {name: re.search(rf"^{name}==(\S+)", lock, re.M) for name in LIBRARIES}
    versions = {name: match and match.group(1) for name, match in found.items()}
    assert versions == LIBRARIES, (
        "tokens may differ: if tests/trainer/encoding pass unchanged, write the new versions into LIBRARIES, else "
        "raise hone_api.contract.encoding.ENCODER_VERSION as well"
    )
