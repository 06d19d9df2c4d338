"""Packing does not let a row see another: packed and separate forward passes agree."""

from __future__ import annotations

import multiprocessing
import os
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from datasets import Dataset
from support.runs.memory import peak_bytes
from trl import pack_dataset

from hone_trainer.encoding import split_file
from hone_trainer.methods import sft
from hone_trainer.training import chunked_loss
from hone_trainer.training.batches import batch_rows, shared_packs
from hone_trainer.training.batches.packing import Packs

pytestmark = pytest.mark.trainer


@pytest.fixture
def packed(tiny_model: Path, rows_files: tuple[Path, Path]) -> tuple[Any, list[split_file.Row], Any]:
    """The model, rows, and one batch of them, packed into sequences of 100 tokens."""
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    rows = split_file.encode_split(rows_files[1], split_file.Encoder(tokenizer), max_length=100).rows
    data = sft.sequences(rows, 100, Path())
    assert len(data) < len(rows)
    batch = DataCollatorForLanguageModeling(tokenizer.pad_token_id, padding_free=True)(list(data))
    return AutoModelForCausalLM.from_pretrained(tiny_model).eval(), rows, batch


@pytest.mark.parametrize(("rows", "longest"), [(3000, 64), (2500, 512), (1999, 33), (1, 8)])
def test_packs_are_those_of_trl(rows: int, longest: int) -> None:
    """Also over the border of the rows that are packed together."""
    lengths = np.random.default_rng(rows).integers(1, longest + 1, rows)
    data = Dataset.from_dict({"input_ids": [[row] * int(length) for row, length in enumerate(lengths)]})
    theirs, ours = pack_dataset(data, longest, "bfd"), Packs.of(lengths, longest)
    assert [[row for row in ours[i] for _ in range(lengths[row])] for i in range(len(ours))] == theirs["input_ids"][:]
    assert ours.lengths.tolist() == [len(ids) for ids in theirs["input_ids"]]


@pytest.mark.parametrize("length", [20, 60])
def test_packs_take_few_bytes_a_row(length: int) -> None:
    """Of 100 tokens: several rows in each, or a row in each. An object of each pack would take 100 bytes."""
    lengths = np.full(50_000, length, np.int32)
    assert peak_bytes(lambda: Packs.of(lengths, 100)) < 32 * len(lengths)


def _rank(number: int, lengths: Any, folder: Path, made: Path) -> None:
    """A rank of three: notes that it packs, and what it got."""
    whole = Packs.of

    def of(*arguments: Any) -> Packs:
        with made.open("a") as file:
            file.write(f"{number}\n")
        return whole(*arguments)

    os.environ |= {"WORLD_SIZE": "3", "RANK": str(number), "LOCAL_RANK": str(number)}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Packs, "of", of)
        packs = shared_packs.packs(lengths, 64, folder)
    assert isinstance(packs.lengths, np.memmap)
    rows = [row for index in range(len(packs)) for row in packs[index]]
    np.savez(made.with_name(f"rank-{number}.npz"), rows=rows, lengths=packs.lengths)


def test_the_ranks_of_a_node_share_what_one_of_them_packed(tmp_path: Path) -> None:
    """The others wait for it. What an earlier attempt left serves the next one, unless it is damaged."""
    lengths, made = np.random.default_rng(7).integers(1, 65, 2500).astype(np.int32), tmp_path / "made"
    alone, context = Packs.of(lengths, 64), multiprocessing.get_context("fork")
    for ranks_that_packed in (["0"], ["0"], ["0", "0"]):
        node = [context.Process(target=_rank, args=(n, lengths, tmp_path / "work", made)) for n in (2, 1, 0)]
        for process in node:
            process.start()
        for process in node:
            process.join()
        assert [process.exitcode for process in node] == [0, 0, 0]
        assert made.read_text().split() == ranks_that_packed
        for number in range(3):
            of_rank = np.load(tmp_path / f"rank-{number}.npz")
            assert of_rank["rows"].tolist() == [row for index in range(len(alone)) for row in alone[index]]
            assert of_rank["lengths"].tolist() == alone.lengths.tolist()
        if (tmp_path / "second").exists():
            (folder,) = (tmp_path / "work" / shared_packs.FOLDER).iterdir()
            (folder / "rows.npy").write_bytes(b"")
        (tmp_path / "second").touch()


def test_packed_rows_give_the_logits_of_separate_ones(packed: tuple[Any, list[split_file.Row], Any]) -> None:
    import torch

    model, rows, batch = packed
    labels = batch.pop("labels")
    bounds = batch["cu_seq_lens_q"].tolist()
    by_ids = {tuple(row.input_ids): row for row in rows}
    with torch.no_grad():
        together = model(**batch, use_cache=False).logits[0]
        blind = model(input_ids=batch["input_ids"], use_cache=False).logits[0]
        worst = contaminated = 0.0
        for start, end in pairwise(bounds):
            ids = batch["input_ids"][:, start:end]
            row = by_ids.pop(tuple(ids[0].tolist()))
            assert labels[0, start + 1 : end].tolist() == row.labels[1:]
            alone = model(input_ids=ids, use_cache=False).logits[0]
            worst = max(worst, float((together[start:end] - alone).abs().max()))
            contaminated = max(contaminated, float((blind[start:end] - alone).abs().max()))
    assert not by_ids  # every row is there, whole
    assert worst < 1e-5
    assert contaminated > 1e-2  # without the positions they do see each other: the comparison can fail


def test_the_loss_of_packed_rows_is_that_of_separate_ones(packed: tuple[Any, list[split_file.Row], Any]) -> None:
    """The model's config asks for a cache, with which a packed batch would attend across its rows."""
    import torch
    from trl.trainer.utils import add_fused_lm_head

    model, rows, batch = packed
    assert model.config.use_cache
    add_fused_lm_head(model, outputs=("log_probs",))
    chunked_loss.install(model)
    with torch.no_grad():
        together = float(model(**batch, fused_lm_head=True).log_probs.sum())
        alone = sum(float(model(**_tensors(row), fused_lm_head=True).log_probs.sum()) for row in rows)
    assert together == pytest.approx(alone, rel=1e-5)


def _tensors(row: split_file.Row) -> dict[str, Any]:
    import torch

    return {"input_ids": torch.tensor([row.input_ids]), "labels": torch.tensor([row.labels])}


def test_rows_of_a_packed_batch_are_named_by_their_lines(packed: tuple[Any, list[split_file.Row], Any]) -> None:
    _, rows, batch = packed
    assert sorted(batch_rows.numbers(batch, rows)) == [row.number for row in rows]
