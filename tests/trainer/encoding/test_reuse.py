"""Rows are reused for another model if it has the same tokenizer, and encoded again if anything that they depend on
differs."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hone_api.contract import encoding
from hone_api.plan import SweepPlan
from hone_trainer.datasets import sweep
from hone_trainer.encoding import reuse
from hone_trainer.models import base_model
from hone_trainer.run import encode
from hone_trainer.store import folders

pytestmark = pytest.mark.trainer
Change = Callable[[Path], None]


def _flip(path: Path, place: int) -> None:
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)


def _json(folder: Path, name: str, **fields: Any) -> None:
    content = json.loads((folder / name).read_text())
    (folder / name).write_text(json.dumps({**content, **fields}))


def _tokenizer(change: Callable[[Any], object]) -> Change:
    def write(folder: Path) -> None:
        content = json.loads((folder / "tokenizer.json").read_text())
        change(content)
        (folder / "tokenizer.json").write_text(json.dumps(content))

    return write


def _template(text: str) -> Change:
    def write(folder: Path) -> None:
        path = folder / "chat_template.jinja"
        path.write_text(path.read_text() + text)

    return write


def _second_template(folder: Path) -> None:
    templates = folder / "additional_chat_templates"
    templates.mkdir()
    (templates / "tool_use.jinja").write_text("{{ messages }}")


def _add_token(content: Any, **flags: bool) -> None:
    plain = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized", "special"), False)
    content["added_tokens"].append({"id": len(content["model"]["vocab"]) + 9, "content": "river", **plain, **flags})


CHANGES: dict[str, Change] = {
    "template": _template("{# another #}"),
    "second template": _second_template,
    "added token": _tokenizer(_add_token),
    "special token": _tokenizer(lambda content: _add_token(content, special=True)),
    "flag of a token": _tokenizer(lambda content: content["added_tokens"][0].update(lstrip=True)),
    "merges": _tokenizer(lambda content: content["model"]["merges"].pop()),
    "normalizer": _tokenizer(lambda content: content.update(normalizer={"type": "Lowercase"})),
    "end of sequence": lambda folder: _json(folder, "tokenizer_config.json", eos_token="<|endoftext|>"),
    "padding that templates can print": lambda folder: _json(folder, "tokenizer_config.json", pad_token="the"),
    "special tokens are split": lambda folder: _json(folder, "tokenizer_config.json", split_special_tokens=True),
    "context": lambda folder: _json(folder, "config.json", max_position_embeddings=128),
    "vocabulary": lambda folder: _json(folder, "config.json", vocab_size=600),
}


@pytest.fixture
def staged(make_plan: Any, tmp_path: Path) -> Callable[..., Any]:
    """A plan that encodes into one store for all of them."""

    def make(**fields: Any) -> Any:
        return make_plan("run", encodedPath=str(tmp_path / "encoded"), **fields)

    return make


@pytest.fixture
def other(tiny_model: Path, tmp_path: Path) -> Path:
    """Another model with the same tokenizer."""
    folder = tmp_path / "other"
    shutil.copytree(tiny_model, folder)
    return folder


def _key(plan: Any) -> str | None:
    return reuse.token_key(plan, plan.datasets[0], base_model.open_base(plan.model_path))


def _of(staged: Callable[..., Any], folder: Path, **fields: Any) -> Any:
    return staged(modelPath=str(folder), modelCommit="other", **fields)


def test_another_model_with_the_same_tokenizer_takes_the_rows(staged: Any, other: Path) -> None:
    plan, again = staged(), _of(staged, other)
    first = encode.run(plan)
    result = encode.run(again)
    assert (first.reused, result.reused) == (0, 2)
    assert (result.rows, result.tokens, result.summary, result.advice) == (
        first.rows,
        first.tokens,
        first.summary,
        first.advice,
    )
    for one, two in zip(encoding.keys(plan) or (), encoding.keys(again) or (), strict=True):
        root = Path(plan.encoded_path)
        assert one != two
        assert folders.is_intact(root / two)
        assert {(root / one / path.name).samefile(path) for path in (root / two).iterdir()} == {True}


def test_a_sweep_removes_the_rows_of_the_first_and_leaves_those_of_the_second(staged: Any, other: Path) -> None:
    plan, again = staged(), _of(staged, other)
    encode.run(plan)
    store = str(Path(plan.encoded_path).parent)
    alone = sweep.run(SweepPlan(store=store, remove=[], as_of=0)).stored["encoded"]
    encode.run(again)
    gone = SweepPlan(store=store, remove=[], encoded=encoding.keys(plan), as_of=time.time() + 7200)
    swept = sweep.run(gone)
    assert (swept.removed, swept.size_bytes, swept.stored["encoded"]) == (2, 0, alone), "linked bytes are there once"
    assert sorted(path.name for path in Path(plan.encoded_path).iterdir()) == sorted(encoding.keys(again) or ())
    assert encode.run(again).reused == 2
    last = sweep.run(gone.model_copy(update={"encoded": encoding.keys(again)}))
    assert (last.removed, last.size_bytes, last.stored["encoded"]) == (2, alone, 0)


@pytest.mark.parametrize("name", CHANGES)
def test_what_tokens_depend_on_is_in_the_key(name: str, staged: Any, other: Path) -> None:
    before = _key(_of(staged, other))
    CHANGES[name](other)
    assert before == _key(staged())
    assert _key(_of(staged, other)) not in (before, None)


def test_weights_and_names_are_not_in_the_key(staged: Any, other: Path) -> None:
    _json(other, "config.json", rms_norm_eps=1e-3, _name_or_path="elsewhere")
    _json(other, "generation_config.json", temperature=0.5)
    _flip(other / "model.safetensors", -5)
    assert _key(_of(staged, other)) == _key(staged())


def test_a_tokenizer_that_was_saved_again_has_the_same_key(staged: Any, other: Path, tokenizers: Any) -> None:
    """As an export does it."""
    for name, tokenizer in tokenizers.items():
        tokenizer.save_pretrained(other)
        before = _key(_of(staged, other))
        base_model.open_base(other).tokenizer.save_pretrained(other)
        assert _key(_of(staged, other)) == before != _key(staged()), name


@pytest.mark.parametrize(
    "fields",
    [
        {"sft": {"trainOn": "LastAssistant"}},
        {"training": {"maxLength": 40}},
        {"training": {"truncation": "Truncate"}},
        {"method": "DPO"},
    ],
    ids=str,
)
def test_options_of_the_job_are_in_the_key(fields: dict[str, Any], staged: Any) -> None:
    assert _key(staged(**fields)) not in (_key(staged()), None)


def test_the_date_is_in_the_key_only_if_the_template_asks_for_it(staged: Any, other: Path) -> None:
    def keys() -> set[str | None]:
        return {_key(_of(staged, other, templateDate=day)) for day in ("2026-11-28", "2026-11-29")}

    assert len(keys()) == 1
    _template("{% if false %}{{ strftime_now('%d') }}{% endif %}")(other)
    assert len(keys()) == 2
    assert _key(_of(staged, other)) is None, "the date is what the clock says"


def test_a_class_with_code_of_its_own_has_no_key(staged: Any) -> None:
    plan = staged()
    base = base_model.open_base(plan.model_path)
    own: Any = base.tokenizer
    own.__class__ = type("Own", (type(own),), {"decode": lambda self, *_, **__: ""})
    assert reuse.token_key(plan, plan.datasets[0], base) is None


def test_a_damaged_folder_is_not_taken(staged: Any, other: Path) -> None:
    plan, again = staged(), _of(staged, other)
    encode.run(plan)
    root = Path(plan.encoded_path)
    keys = encoding.keys(plan) or []
    _flip(root / keys[0] / "rows.arrow", -9)
    (root / keys[1] / "counts.json").unlink()
    assert encode.run(again).reused == 0
    assert all(folders.is_intact(root / key) for key in encoding.keys(again) or ())
    assert encode.run(plan).reused == 2, "and is replaced by the rows of the other model"


def test_without_hard_links_the_files_are_copied(staged: Any, other: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan, again = staged(), _of(staged, other)
    encode.run(plan)

    def refuse(*_: Any) -> None:
        raise PermissionError("not supported")

    monkeypatch.setattr(os, "link", refuse)
    assert encode.run(again).reused == 2
    root = Path(plan.encoded_path)
    assert all(folders.is_intact(root / key) for key in encoding.keys(again) or ())
    assert sorted(path.name for path in root.iterdir()) == sorted(
        [*(encoding.keys(plan) or ()), *(encoding.keys(again) or ())]
    )


def test_rows_of_other_files_are_not_taken(staged: Any, other: Path, tmp_path: Path) -> None:
    plan = staged()
    encode.run(plan)
    file = tmp_path / "more.jsonl"
    file.write_text(Path(plan.datasets[0].path).read_text() * 2)
    digest = f"sha256:{hashlib.sha256(file.read_bytes()).hexdigest()}"
    rows = plan.datasets[0].model_copy(update={"path": str(file), "digest": digest})
    result = encode.run(_of(staged, other).model_copy(update={"datasets": [rows]}))
    assert (result.reused, result.rows) == (1, 176), "those of the validation split alone"
