"""Ranks that share rows learn what each would learn alone; a model whose rows they cannot share is refused."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from support.models import every_family, row_sharing
from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

from hone_dev.cluster.objectstore import free_port
from hone_trainer.encoding.row import IGNORED
from hone_trainer.training.batches.shared_rows import RowGroup

pytestmark = pytest.mark.trainer
OUTSIDE = Path(__file__).parents[4] / "docs" / "outside.md"

MIXES = "mixes tokens outside of attention, or computes them otherwise in a longer row"
SAMPLE = {
    "llama": row_sharing.SHARED,
    "gpt_oss": row_sharing.SHARED,
    "one key head": row_sharing.SHARED,
    "odd heads": "3 attention heads cannot be divided among 2 ranks",
    "longrope": MIXES,
    "dynamic": MIXES,
    "mamba": "takes whole rows only",
    **dict.fromkeys(row_sharing.FAILING, "together: RuntimeError: the card of rank 1 is broken"),
}


def test_ranks_that_share_rows_learn_what_one_learns_or_refuse_the_model() -> None:
    found = row_sharing.outcomes(list(SAMPLE), free_port("127.0.0.1"))
    assert found.keys() == SAMPLE.keys()
    assert {name: words in found[name] for name, words in SAMPLE.items()} == dict.fromkeys(SAMPLE, True), found


def test_a_pass_has_a_token_for_each_rank() -> None:
    """The last piece of a document has any number of them, and nobody can leave it out."""
    group, collate = RowGroup(None, 4), DataCollatorForLanguageModeling(0, padding_free=True)
    whole, short = (collate([{"input_ids": [5] * length}]) for length in (4, 3))
    assert group.filled(whole) is whole
    filled = group.filled(short)
    assert {name: value.tolist() for name, value in filled.items() if name in ("input_ids", "labels")} == {
        "input_ids": [[5, 5, 5, 0]],
        "labels": [[IGNORED, 5, 5, IGNORED]],
    }
    assert filled["attention_mask"].tolist() == [[1, 1, 1, 0]]
    assert filled["cu_seq_lens_q"].tolist() == filled["cu_seq_lens_k"].tolist() == [0, 3, 4]
    assert filled["max_length_q"] == 3


@pytest.mark.outside
@pytest.mark.long
def test_no_family_learns_otherwise_from_shared_rows() -> None:
    found = row_sharing.outcomes(every_family.families(), free_port("127.0.0.1"))
    count = Counter("refused" if "cannot compute" in words else words for words in found.values())
    assert count.keys() == {row_sharing.SHARED, "refused", row_sharing.NOT_BUILT}, found
    assert not [name for name, words in found.items() if "view size" in words]
    row = next(line for line in OUTSIDE.read_text().splitlines() if line.startswith("| `training.sequenceParallel`"))
    _, _, tried, holds, *_ = (cell.strip() for cell in row.split("|"))
    shared, refused = count[row_sharing.SHARED], count["refused"]
    assert (tried, holds) == (f"{shared + refused}", f"{shared} are shared, {refused} refused before the first step")
