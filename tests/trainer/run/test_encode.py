"""`python -m hone_trainer encode`: rows become tokens once, and a run reads those and nothing else."""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.models.family_templates import record, says, tokenizer, user
from support.runs.forks import Forks

from hone_api.contract import encoding
from hone_api.contract.report import EncodeResult
from hone_api.contract.termination import TerminationMessage
from hone_trainer.encoding import rendering
from hone_trainer.errors import DataError, StoreError, TrainerError
from hone_trainer.models import base_model
from hone_trainer.reporting.live import Reporters
from hone_trainer.run import encode, rows
from hone_trainer.signals import Stop
from hone_trainer.store import contents, manifest

pytestmark = pytest.mark.trainer


def _staged(make_plan: Any, tmp_path: Path, name: str = "run", **fields: Any) -> Any:
    return make_plan(name, encodedPath=str(tmp_path / "store" / "encoded"), **fields)


Command = Callable[[Any, Path], tuple[int, TerminationMessage, str]]


@pytest.fixture
def command(forks: Callable[[], Forks]) -> Command:
    """`python -m hone_trainer encode` in a folder: exit code, outcome and log."""

    def run(plan: Any, folder: Path) -> tuple[int, TerminationMessage, str]:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "plan.json").write_text(plan.model_dump_json(by_alias=True))
        termination = folder / "termination"
        environment = {"HONE_TERMINATION_LOG": str(termination)}
        code = forks()(["encode", str(folder / "plan.json")], environment, folder / "log")
        return code, TerminationMessage.model_validate_json(termination.read_text()), (folder / "log").read_text()

    return run


def test_the_command_encodes_reports_and_reuses(command: Command, make_plan: Any, tmp_path: Path) -> None:
    plan = _staged(make_plan, tmp_path)
    code, outcome, log = command(plan, tmp_path / "first")
    assert code == 0, log
    result = outcome.result
    assert isinstance(result, EncodeResult)
    keys = encoding.keys(plan)
    assert keys is not None
    folders = {key: Path(plan.encoded_path) / key for key in keys}
    assert sorted(path.name for path in Path(plan.encoded_path).iterdir()) == sorted(folders)
    assert result.digest == encoding.digest({key: manifest.digest_of(folder) for key, folder in folders.items()})
    assert (result.splits, result.reused, result.rows) == (2, 0, 96)
    assert result.size_bytes == sum(map(manifest.size_of, folders.values()))
    assert float(result.tokens_per_second or 0) > 0
    assert [text.partition(":")[0] for text in result.summary] == ["places/train", "places/validation"]
    assert "Encoding 96/96 rows" in log
    again = encode.run(plan)
    assert (again.reused, again.digest, again.tokens) == (2, result.digest, result.tokens)


def test_held_out_rows_that_are_trained_on_are_reported(command: Command, make_plan: Any, tmp_path: Path) -> None:
    plan = _staged(make_plan, tmp_path)
    assert encode.run(plan).advice == []
    train, held_out = (Path(one.path) for one in (*plan.datasets, *plan.evaluation_datasets))
    lines = held_out.read_text().splitlines()
    (leaky := tmp_path / "leaky.jsonl").write_text("\n".join([*lines, *train.read_text().splitlines()[:3], ""]))
    exam = plan.evaluation_datasets[0].model_copy(
        update={"path": str(leaky), "name": "exam", "digest": contents.UNKNOWN}
    )
    code, outcome, log = command(plan.model_copy(update={"evaluation_datasets": [exam]}), tmp_path / "leaky")
    assert code == 0, log
    (sentence,) = outcome.result.advice
    words = f"exam/validation: 3 of {len(lines) + 3} held-out rows have their question in the training rows"
    assert sentence.startswith(words)


def test_what_an_earlier_attempt_encoded_foretells_no_end(make_plan: Any) -> None:
    reporters = Reporters()
    work = encode._Work(make_plan(), None, reporters)  # a report reads no base
    work._all = 96
    reporters.begin_rows("Encoding", 96)
    reporters._reported = 0.0  # long ago
    work._keep("places/train", 60, 600)
    work._note(0, 0, 60, 600)
    assert (reporters.progress.rows, reporters.progress.eta_seconds) == (60, None)
    work._note(0, 0, 96, 960)
    assert (reporters.progress.rows, reporters.progress.eta_seconds) == (96, 0)


def test_a_run_reads_what_was_staged_and_encodes_nothing(
    make_plan: Any, runs: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan, alone = _staged(make_plan, tmp_path), make_plan("alone")
    plan = plan.model_copy(update={"encoded_digest": encode.run(plan).digest})
    monkeypatch.setattr(encode._Work, "encode", None)
    runs.finish(encode.prepare(plan, Stop(), first=True))
    assert not (Path(plan.work_path) / encoding.FOLDER).exists()
    monkeypatch.undo()
    runs.finish(alone)
    assert runs.curve(plan) == runs.curve(alone)


def test_a_damaged_folder_is_not_read(make_plan: Any, tmp_path: Path) -> None:
    plan = _staged(make_plan, tmp_path)
    result = encode.run(plan)
    (folder, *_) = [Path(plan.encoded_path) / key for key in encoding.keys(plan) or ()]
    arrow = folder / "rows.arrow"
    content = arrow.read_bytes()
    arrow.write_bytes(content[:-9] + b"\x01" + content[-8:])
    with pytest.raises(StoreError, match=r"rows\.arrow: SHA-256"):
        encode.verify_folders(plan.model_copy(update={"encoded_digest": result.digest}))
    assert encode.verify_folders(plan).encoded_path is None, "without a pin the run encodes the rows itself"
    assert encode.run(plan).digest == result.digest, "the stage makes the folder again"
    with pytest.raises(StoreError, match=r"and not sha256:0000"):
        encode.verify_folders(plan.model_copy(update={"encoded_digest": "sha256:" + "0" * 64}))


def test_a_damaged_cache_is_made_again(make_plan: Any) -> None:
    plan = make_plan()
    base = base_model.open_base(plan.model_path)
    before = list(rows.load(plan, base).train)
    (folder, _) = sorted((Path(plan.work_path) / encoding.FOLDER).iterdir())
    (folder / "lengths.npy").write_bytes(b"")
    assert encode.verify_folders(plan) == plan
    assert not folder.exists()
    assert list(rows.load(plan, base).train) == before


def test_a_bad_row_ends_the_stage_with_its_line_and_code(command: Command, make_plan: Any, tmp_path: Path) -> None:
    file = tmp_path / "bad.jsonl"
    file.write_text(json.dumps({"prompt": "a", "completion": "b"}) + "\n{\n")
    source = {"name": "bad", "split": "train", "path": str(file), "digest": "sha256:" + "0" * 64}
    code, outcome, log = command(make_plan(datasets=[source], held_out=False), tmp_path / "bad")
    assert code == 65, log
    assert outcome.failure is not None
    assert (outcome.failure.code, outcome.failure.message.partition(": not JSON")[0]) == (
        "InvalidRow",
        f"{file}, line 2",
    )


def test_a_split_that_was_done_is_kept_when_a_later_one_fails(make_plan: Any, tmp_path: Path) -> None:
    plan, late = _staged(make_plan, tmp_path), tmp_path / "late.jsonl"
    late.write_text(json.dumps({"prompt": "a", "completion": "b"}) + "\n{\n")
    digest = f"sha256:{hashlib.sha256(late.read_bytes()).hexdigest()}"
    held_out = plan.evaluation_datasets[0].model_copy(update={"path": str(late), "digest": digest})
    with pytest.raises(DataError, match=f"{late}, line 2: not JSON"):
        encode.run(plan.model_copy(update={"evaluation_datasets": [held_out]}))
    done = encode.place(plan, plan.datasets[0], writes=True)
    assert manifest.is_complete(done)
    assert list(done.parent.iterdir()) == [done]
    assert encode.run(plan).reused == 1


def test_rows_that_a_teacher_answers_later_are_refused(make_plan: Any, tiny_model: Path) -> None:
    block = {"teacherModelVersion": "large-v1"}
    plan = make_plan(method="Distillation", distillation=block, models={"large-v1": {"path": str(tiny_model)}})
    with pytest.raises(TrainerError, match="no rows exist yet"):
        encode.run(plan)


def test_rows_without_a_digest_are_known_by_their_file(make_plan: Any, tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    source = {"name": "own", "split": "train", "path": str(file), "digest": "sha256:" + "0" * 64}
    plan = make_plan(datasets=[source], held_out=False)
    base = base_model.open_base(plan.model_path)
    seen = []
    for text in ("near", "far away"):
        file.write_text(json.dumps({"prompt": "Where?", "completion": text}) + "\n")
        seen.append(rows.load(plan, base).train[0])
    assert seen[0] != seen[1]


PLAIN = record("Plain", "one")
PAIR = {"prompt": [user("Hi?")], "chosen": [says("Hello.")], "rejected": [says("No.")]}
GRPO = {"rewards": [{"type": "ExactMatch"}]}


@pytest.mark.parametrize(
    ("template", "records", "fields", "code"),
    [
        ("qwen3", [PLAIN], {}, None),
        ("deepseek_r1_distill", [PLAIN, record("Reasoning", "one")], {}, None),
        ("deepseek_r1_distill", [PLAIN], {}, "NoTrainableRows"),
        ("qwen3_5_nothink", [record("Reasoning", "one")], {}, "NoTrainableRows"),
        ("qwen3_5_nothink", [record("Reasoning", "one")], {"training": {"thinking": "Enabled"}}, None),
        ("phi3", [record("Tools", "answered")], {}, "NoTrainableRows"),
        ("qwen3", [PLAIN], {"training": {"maxLength": 8}}, "NoTrainableRows"),
        ("qwen3", [PLAIN], {"training": {"maxLength": 8, "truncation": "Refuse"}}, "RowTooLong"),
        ("", [PLAIN], {}, "UnsupportedModel"),
        ("", [{"text": "All of it."}], {"method": "DAPT"}, None),
        ("qwen3", [PAIR], {"method": "DPO"}, None),
        ("deepseek_r1_distill", [PAIR], {"method": "DPO"}, "NoTrainableRows"),
        ("qwen3", [{"prompt": "1 + 1?", "answer": "2"}], {"method": "GRPO", "grpo": GRPO}, None),
        ("qwen3", [{"chosen": "a"}], {}, "DatasetFormatMismatch"),
    ],
)
def test_what_is_tried_without_weights_is_refused_as_all_rows_would_be(
    make_plan: Any, tmp_path: Path, template: str, records: list[Any], fields: dict[str, Any], code: str | None
) -> None:
    model, file = tmp_path / "model", tmp_path / "rows.jsonl"
    tok = copy.copy(tokenizer(template or "qwen3"))
    tok.chat_template = tok.chat_template if template else None
    tok.save_pretrained(model)
    (model / "config.json").write_text(json.dumps({"model_type": "llama", "vocab_size": len(tok)}))
    file.write_text("".join(json.dumps(row) + "\n" for row in records))
    source = {"name": "rows", "split": "train", "path": str(file), "digest": contents.UNKNOWN}
    plan = make_plan(modelPath=str(model), datasets=[source], held_out=False, **fields)

    def ending(carry_out: Callable[[], object]) -> str | None:
        try:
            carry_out()
        except TrainerError as error:
            return str(error.code)
        return None

    assert ending(lambda: encode.try_rows(plan, model)) == code
    (model / "model.safetensors").touch()
    with rendering.of_run(None, plan.training.thinking):
        assert ending(lambda: encode.in_memory(plan, base_model.open_base(model), str(file))) == code
