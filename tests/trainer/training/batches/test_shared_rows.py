"""Ranks that share rows learn what each would learn alone; a model whose rows they cannot share is refused."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from support.models import every_family, row_sharing

from hone_dev.cluster.objectstore import free_port
from hone_trainer.encoding.row import Row
from hone_trainer.errors import TrainerError
from hone_trainer.methods import sft
from hone_trainer.run import rows_in_one_pass

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
}


def test_ranks_that_share_rows_learn_what_one_learns_or_refuse_the_model() -> None:
    found = row_sharing.outcomes(list(SAMPLE), free_port("127.0.0.1"))
    assert found.keys() == SAMPLE.keys()
    assert {name: words in found[name] for name, words in SAMPLE.items()} == dict.fromkeys(SAMPLE, True), found


def test_a_row_that_is_packed_may_have_fewer_tokens_than_ranks_that_share_it(tmp_path: Path) -> None:
    """The last piece of a document has any number of them, and nobody can leave it out."""
    rows = [Row([5] * length, [5] * length, number) for number, length in enumerate((60, 3))]
    rows_in_one_pass.refuse_short(sft.sequences(rows, 64, tmp_path), 4)
    with pytest.raises(TrainerError, match="a sequence has 3 tokens, fewer than the 4 ranks that share it"):
        rows_in_one_pass.refuse_short(sft.sequences(rows, None, tmp_path), 4)


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
