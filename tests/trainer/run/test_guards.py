"""What would train the wrong thing is caught before the first step; what looks wrong is reported."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hone_trainer.device import Device
from hone_trainer.encoding.split_file import IGNORED, Counts, Encoded, Row
from hone_trainer.errors import TrainerError
from hone_trainer.evaluation import loss_spikes
from hone_trainer.methods import METHODS, sft
from hone_trainer.models import base_model
from hone_trainer.run import leaks, preflight, rows
from hone_trainer.training import selfcheck

pytestmark = pytest.mark.trainer


@pytest.fixture
def with_tokenizer(tmp_path: Path, tiny_model: Path) -> Any:
    """The tiny model with another tokenizer_config.json or template; gives its folder."""

    def make(template: str | None = None, added: Sequence[str] = (), eos: str | None = "<|im_end|>") -> Path:
        from transformers import AutoTokenizer

        folder = tmp_path / "model"
        shutil.copytree(tiny_model, folder)
        tokenizer = AutoTokenizer.from_pretrained(folder)
        tokenizer.add_tokens(list(added))
        tokenizer.eos_token = eos
        tokenizer.chat_template = template or tokenizer.chat_template
        tokenizer.save_pretrained(folder)
        return folder

    return make


def test_the_first_row_is_shown_with_its_mask_and_is_in_the_report(
    runs: Any, make_plan: Any, rows_files: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = make_plan(held_out=False, training={"maxSteps": 1})
    runs.finish(plan)
    report = json.loads((Path(plan.output_path) / "adapter" / "report.json").read_text())
    user, assistant = json.loads(rows_files[0].read_text().splitlines()[0])["messages"]
    assert report["example"] == [
        {"text": f"<|im_start|>user\n{user['content']}<|im_end|>\n<|im_start|>assistant\n", "trained": False},
        {"text": f"{assistant['content']}<|im_end|>", "trained": True},
    ]
    assert f"⟦{assistant['content']}<|im_end|>⟧" in capsys.readouterr().err


def shifted(plan: Any, examples: Sequence[Row], max_length: int) -> Any:
    """Labels that are already those of the next position, as pre-training corpora have them."""
    moved = [Row(row.input_ids, [*row.labels[1:], IGNORED], row.number) for row in examples]
    return sft.build_dataset(plan, moved, max_length)


def hidden(plan: Any, examples: Sequence[Row], max_length: int) -> Any:
    return sft.build_dataset(
        plan, [Row(r.input_ids, [IGNORED] * len(r.labels), r.number) for r in examples], max_length
    )


@pytest.mark.parametrize(
    ("dataset", "words"),
    [
        (shifted, "its labels are shifted, and the model shifts them again"),
        (hidden, "mask of the first batch hides every token"),
    ],
)
def test_labels_that_changed_on_their_way_end_the_run_before_the_first_step(
    runs: Any, make_plan: Any, monkeypatch: pytest.MonkeyPatch, dataset: Any, words: str
) -> None:
    monkeypatch.setitem(METHODS, "SFT", replace(sft.METHOD, dataset=dataset))
    with pytest.raises(TrainerError, match=words) as caught:
        runs.finish(make_plan(held_out=False))
    assert caught.value.code == "SelfCheckFailed"


def test_a_row_whose_mask_hides_everything_is_named(tiny_model: Path) -> None:
    encoded = Encoded([Row([1, 2, 3], [IGNORED] * 3, 7)], Counts(rows=1))
    with pytest.raises(TrainerError, match="places/train, line 7: no token counts in the loss"):
        preflight.check_rows(encoded, base_model.open_base(tiny_model), "places/train")


def test_a_tokenizer_with_more_tokens_than_the_model_is_caught_where_a_row_has_one(
    make_plan: Any, with_tokenizer: Any, tmp_path: Path
) -> None:
    folder = with_tokenizer(added=[f"zebra{number}" for number in range(200)])
    file = tmp_path / "rows.jsonl"
    file.write_text('{"prompt": "Who?", "completion": "the horse"}\n{"prompt": "Who?", "completion": "the zebra199"}\n')
    plan = make_plan(
        modelPath=str(folder), datasets=[{"name": "zoo", "path": str(file), "digest": f"sha256:{'0' * 64}"}]
    )
    with pytest.raises(TrainerError, match=r"zoo/train, line 2: token id 5[0-9]+ is outside .* do not fit together"):
        rows.load(plan, base_model.open_base(folder))


def test_an_end_of_turn_token_that_the_model_does_not_have_is_refused(
    runs: Any, make_plan: Any, with_tokenizer: Any
) -> None:
    folder = with_tokenizer(added=[f"zebra{number}" for number in range(200)], eos="zebra199")
    with pytest.raises(
        TrainerError, match=r"eos token zebra199 has id 5[0-9]+, the model's vocabulary is 512"
    ) as caught:
        runs.finish(make_plan(modelPath=str(folder)))
    assert caught.value.code == "ModelUnsuitable"


def test_a_tokenizer_without_an_end_of_sequence_token_is_refused(with_tokenizer: Any) -> None:
    with pytest.raises(TrainerError, match="no end-of-sequence token") as caught:
        base_model.open_base(with_tokenizer(eos=None))
    assert caught.value.code == "UnsupportedModel"


def test_the_template_of_another_model_is_reported(with_tokenizer: Any, tiny_model: Path) -> None:
    assert selfcheck.advice(base_model.open_base(tiny_model)) == []
    gemma = (
        "{% for m in messages %}<start_of_turn>{{ m.role }}\n{{ m.content }}<end_of_turn>\n{% endfor %}"
        "{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
    )
    (words,) = selfcheck.advice(base_model.open_base(with_tokenizer(template=gemma)))
    assert "<start_of_turn> is" in words
    assert "they are of different models" in words


def test_rows_that_lost_their_end_of_turn_token_are_reported_in_the_result(runs: Any, make_plan: Any) -> None:
    plan = make_plan(held_out=False, training={"maxSteps": 1, "maxLength": 26, "truncation": "Truncate"})
    (words,) = runs.finish(plan).advice
    assert "rows train their end-of-turn token; the model may not learn to stop" in words


def curve(*losses: float) -> list[dict[str, Any]]:
    return [{"step": step, "loss": loss} for step, loss in enumerate(losses, 1)]


@pytest.mark.parametrize(
    ("losses", "steps"),
    [
        ((2.0, 1.9, 1.8, 1.9, 1.7, 1.6, 8.0, 1.6, 1.5), [7]),
        ((2.0, 1.0, 3.0, 1.5, 2.5, 1.2, 3.5, 2.0), []),  # batches that differ much
        ((8.0, 1.0, 1.0, 1.0), []),  # too early to say what is usual
        ((2.0, 1.9, 1.8, 1.9, 1.7, 1.6, 1.5, 1.4, 1.3), []),
    ],
)
def test_spikes_are_jumps_above_what_is_usual(losses: tuple[float, ...], steps: list[int]) -> None:
    assert [step for step, _, _ in loss_spikes.spikes(curve(*losses))] == steps
    assert bool(loss_spikes.sentences(curve(*losses))) == bool(steps)


def test_a_loss_that_rose_is_reported() -> None:
    (words,) = loss_spikes.sentences(curve(6.2, 6.3, 7.0, 8.0, 9.0, 9.5, 10.0, 10.2))
    assert "the training loss rose from 6.25 to 10.1" in words
    assert not loss_spikes.sentences(curve(6.2, 6.3, 6.1, 6.3, 6.2, 6.3, 6.2, 6.3))


def test_the_run_warns_of_a_rate_far_from_the_usual_and_of_held_out_rows_that_it_trains_on(
    runs: Any, make_plan: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = make_plan(held_out=False, adapter={"type": "None"}, training={"maxSteps": 1, "learningRate": "1"})
    plan.evaluation.max_rows = 2
    exam = plan.datasets[0].model_copy(update={"name": "exam"})
    advice = runs.finish(plan.model_copy(update={"evaluation_datasets": [exam]})).advice
    said = capsys.readouterr().err
    for words in ("learningRate 1 is 50000 times above", "exam/train: 80 of 80 held-out rows have their question in"):
        assert any(words in sentence for sentence in advice)
        assert words in said


def test_a_comparison_of_held_out_rows_that_fails_ends_no_run(make_plan: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: Any) -> Any:
        raise OSError("no space left on device")

    monkeypatch.setattr(leaks.keys, "trained_on", fails)
    (words,) = leaks.advice(make_plan())
    assert words.endswith("OSError: no space left on device")
    assert leaks.advice(make_plan(held_out=False)) == []


def test_a_run_without_a_gradient_ends(runs: Any, make_plan: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from hone_trainer.training.loop import Loop

    attach = Loop.attach

    def attached(self: Any, run: Any) -> None:
        attach(self, run)
        theirs = self.compute_loss
        self.compute_loss = lambda *args, **kwargs: theirs(*args, **kwargs) * 0

    monkeypatch.setattr(Loop, "attach", attached)
    plan = make_plan(held_out=False, training={"maxSteps": 2})
    with pytest.raises(TrainerError, match="the gradient was 0 in each of the 2 steps") as caught:
        runs.finish(plan)
    assert (caught.value.code, caught.value.step) == ("NoGradient", 2)
    assert not Path(plan.output_path).exists()


def test_a_spike_is_reported_with_step_and_loss() -> None:
    (words,) = loss_spikes.sentences(curve(2.0, 2.0, 2.0, 2.0, 2.0, 9.0))
    assert "jumped 1 times (step 6: 9 after 2)" in words


def test_an_empty_chat_template_is_reported(with_tokenizer: Any) -> None:
    folder = with_tokenizer()
    (folder / "chat_template.jinja").write_text("")
    (words,) = selfcheck.advice(base_model.open_base(folder))
    assert "chat template is empty" in words


def test_bfloat16_with_deepspeed_on_a_cpu_is_refused_by_its_field(make_plan: Any) -> None:
    plan = make_plan(training={"precision": "BFloat16"}, deepspeed={"zeroStage": 2})
    with pytest.raises(TrainerError, match="BFloat16 with deepspeed needs a GPU") as caught:
        preflight.check_plan(plan, Device(1, cuda=False, bf16=True), methods=METHODS)
    assert caught.value.code == "HardwareUnsuitable"
    preflight.check_plan(plan, Device(1, cuda=True, bf16=True), methods=METHODS)
