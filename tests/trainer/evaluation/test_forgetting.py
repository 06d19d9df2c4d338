"""Replay against forgetting: a model that knows one thing learns another, alone or with some rows of the first."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from support.runs import split_files

pytestmark = pytest.mark.trainer
WORDS = ["apple", "stone", "cloud", "horse", "lemon", "table", "candle", "mirror"]


def rows_file(path: Path, pairs: list[tuple[str, str]], name: str, split: str = "train") -> dict[str, str]:
    return split_files.write(path, [{"prompt": q, "completion": a} for q, a in pairs], name, split)


def kept(result: Any) -> tuple[float, float]:
    """Loss on what was known before, of base and tuned model."""
    import math

    found = next(n for n in result.numbers if n.purpose == "Retention")
    return math.log(float(found.base)), math.log(float(found.tuned))


def learned(result: Any) -> tuple[float, float]:
    found = next(n for n in result.numbers if n.name == "loss")
    return float(found.base), float(found.tuned)


def test_replay_cuts_forgetting_at_least_by_half_at_equal_steps_and_the_start_holds_weights(
    runs: Any, make_plan: Any, rows_files: tuple[Path, Path], tmp_path: Path
) -> None:
    known, validation = make_plan().datasets[0], make_plan().evaluation_datasets[0]
    known = known.model_dump(mode="json", by_alias=True, exclude_none=True)
    validation = validation.model_dump(mode="json", by_alias=True)
    training = {"learningRate": "3e-3", "scheduler": "Constant", "batchSize": 16, "microBatchSize": 16}
    quiet = {"everySteps": 1000, "samples": 0}

    first = make_plan("first", held_out=False, adapter={"type": "None"}, training={**training, "maxSteps": 40})
    runs.finish(first)
    pairs = [(f"Spell {a} {b}.", f"{' '.join(a)} , {' '.join(b)}") for a in WORDS for b in WORDS]
    new = rows_file(tmp_path / "spelling.jsonl", pairs[:56], "spelling")
    unseen = rows_file(tmp_path / "unseen.jsonl", pairs[56:], "spelling", "validation")
    second = {
        "modelPath": str(Path(first.output_path) / "full"),
        "adapter": {"type": "None"},
        "training": {**training, "maxSteps": 24},
        "evaluationDatasets": [unseen],
        "evaluation": {**quiet, "retention": {"datasets": [{"name": "places"}]}},
        "retentionDatasets": [validation],
    }
    alone = runs.finish(make_plan("alone", datasets=[new], **second))
    replayed = runs.finish(make_plan("replayed", datasets=[new, {**known, "share": "30%"}], **second))

    second["training"]["l2ToStart"] = "0.02"
    held = runs.finish(make_plan("held", datasets=[new], **second))

    before, after = kept(alone)
    assert kept(replayed)[0] == pytest.approx(before)
    assert after - before > 0.5, "there is something to forget"
    assert kept(replayed)[1] - before <= 0.5 * (after - before)
    assert kept(held)[1] - before <= 0.8 * (after - before)
    for result in (alone, replayed, held):
        base, tuned = learned(result)
        assert tuned < 0.5 * base, "and the new is learned all the same"
