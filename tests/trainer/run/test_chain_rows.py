"""The second stage of a chain reads the rows that were encoded for the first one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from hone_api.contract import encoding
from hone_trainer.models import merge_base
from hone_trainer.run import encode
from hone_trainer.signals import Stop

pytestmark = pytest.mark.trainer


def _second(make_plan: Any, name: str, first: Any, artifact: Any, **fields: Any) -> Any:
    """A stage that starts from what the first one exported."""
    folder = str(Path(first.output_path) / artifact.uri)
    model = {"modelPath": folder, "modelDigest": artifact.digest}
    if artifact.format == "Adapter":
        model = {"modelAdapter": {"path": folder, "digest": artifact.digest}}
    return make_plan(name, modelVersion="tiny-v1", **model, **fields)


@pytest.mark.parametrize("adapter", ["None", "LoRA"])
def test_a_chain_encodes_its_rows_once_with_the_same_losses(
    adapter: str, make_plan: Any, runs: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    staged: dict[str, Any] = {"encodedPath": str(tmp_path / "encoded"), "adapter": {"type": adapter}}
    first = make_plan("first", **staged, output={"modelName": "tiny", "merge": False})
    before = encode.run(first)
    (artifact, *_) = runs.finish(first.model_copy(update={"encoded_digest": before.digest})).artifacts
    assert artifact.format == ("Full" if adapter == "None" else "Adapter")

    second = _second(make_plan, "second", first, artifact, **staged)
    with monkeypatch.context() as patch:
        patch.setattr(encode._Work, "encode", None)
        result = encode.run(second)
        assert (result.reused, result.rows, result.tokens) == (2, before.rows, before.tokens)
        assert not set(encoding.keys(second) or ()) & set(encoding.keys(first) or ())
        second = second.model_copy(update={"encoded_digest": result.digest})
        runs.finish(encode.prepare(merge_base.prepare(second, first=True), Stop(), first=True))
    alone = _second(make_plan, "alone", first, artifact, adapter={"type": adapter})
    runs.finish(merge_base.prepare(alone, first=True))
    form = "full" if adapter == "None" else "adapter"
    assert runs.curve(second, form) == runs.curve(alone, form)
    assert runs.curve(second, form) != runs.curve(first, form)
