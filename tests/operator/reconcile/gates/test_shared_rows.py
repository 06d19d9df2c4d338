"""Held-out Datasets that share rows with those trained on are named before a GPU is requested; nothing is refused."""

from __future__ import annotations

from typing import Any

import pytest
from support.lives.dataset_life import ready

pytestmark = pytest.mark.pure
DIGEST = "sha256:" + "1" * 64


def advice(
    world: Any, new_life: Any, shared: dict[str, dict[str, Any]], exam: dict[str, int] | None = None, **spec: Any
) -> str:
    """Condition Advised of a job, by the `sharedRows` of Datasets that are all Ready."""
    life = new_life(model={"uri": "hf://org/model@main"}, **spec)
    for name in ("rows", "exam", "other"):
        life.datasets[name] = ready(
            name, **((exam or {"train": 50}) if name == "exam" else {"train": 50, "validation": 5})
        )
        if name in shared:
            life.datasets[name]["status"]["sharedRows"] = [
                {"rows": 0, "questions": 7, "digest": DIGEST, **shared[name]}
            ]
    life.tick()
    result = {"kind": "Fetch", "path": "base-models/org--model/abc", "commit": "abc"}
    life.ends("Complete", world.dead(0, outcome={"result": result}))
    assert world.component("Job", life.tick(61).create) == ["run-1"], "it is advice"
    (condition,) = [c for c in life.status["conditions"] if c["type"] == "Advised"]
    return str(condition.get("message") or "")


EXAM = {"evaluationDatasets": [{"name": "exam", "split": "train"}]}
SENTENCE = "Datasets rows, which is trained on, and exam, which is held out, share questions (7 rows)"


@pytest.mark.parametrize("shared", [{"rows": {"name": "exam"}}, {"exam": {"name": "rows"}}])
def test_either_status_is_enough(world: Any, new_life: Any, shared: dict[str, Any]) -> None:
    assert SENTENCE in advice(world, new_life, shared, **EXAM)


@pytest.mark.parametrize(
    "shared",
    [
        {},
        {"rows": {"name": "other"}},
        {"other": {"name": "exam"}},
        {"rows": {"name": "exam", "digest": DIGEST[:-1] + "0"}},
    ],
)
def test_other_datasets_and_earlier_contents_do_not_count(world: Any, new_life: Any, shared: dict[str, Any]) -> None:
    assert "share questions" not in advice(world, new_life, shared, **EXAM)


@pytest.mark.parametrize(("crossing", "says"), [(0, False), (7, True)])
def test_of_datasets_that_give_both_what_crosses_counts(world: Any, new_life: Any, crossing: int, says: bool) -> None:
    """Each is held out by its own split validation."""
    spec = {"datasets": [{"name": "rows"}, {"name": "exam"}]}
    message = advice(
        world,
        new_life,
        {"rows": {"name": "exam", "questions": 9, "crossing": crossing}},
        {"train": 50, "validation": 5},
        **spec,
    )
    assert (SENTENCE in message) is says


@pytest.mark.parametrize(
    ("exam", "held_out", "questions", "crossing", "says"),
    [
        ({"train": 50}, "train", 9, 2, True),
        ({"train": 50}, "train", 7, 7, False),  # the rows that are held out of `rows`
        ({"train": 50, "validation": 5}, "train", 7, 0, False),  # perhaps those that both hold out
        ({"train": 50, "validation": 5}, "validation", 7, 0, False),
        ({"train": 50, "validation": 5}, "validation", 9, 7, True),
        ({"validation": 5}, "validation", 9, 7, True),
    ],
)
def test_only_splits_that_the_job_names_count(
    world: Any, new_life: Any, exam: dict[str, int], held_out: str, questions: int, crossing: int, says: bool
) -> None:
    spec = {"evaluationDatasets": [{"name": "exam", "split": held_out}]}
    shared = {"rows": {"name": "exam", "questions": questions, "crossing": crossing}}
    assert (SENTENCE in advice(world, new_life, shared, exam, **spec)) is says
