"""Runs on preferences of several turns: only the assistant's tokens are in the loss.

Losses are computed here by hand, in float64, by the model as it is at that step.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.runs import split_files

from hone_trainer.methods import pairs
from hone_trainer.methods.dpo import Contrasted
from hone_trainer.methods.kto import Valued
from hone_trainer.methods.reward import Ranked

pytestmark = pytest.mark.trainer


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def said(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


def tool(text: str) -> dict[str, str]:
    return {"role": "tool", "content": text}


def preferences() -> list[dict[str, Any]]:
    """24 pairs of unequal shapes; every fourth has single turns."""
    found = []
    for i in range(24):
        place, last = ("Rome", "Oslo", "Lima", "Cairo")[i % 4], said(f"Thank you: {i} degrees in the market.")
        several = [said("Where is it?"), user(f"Near {place}, by the river."), last]
        with_tool = [
            said(f"Look up {place}."),
            tool(f"{i} degrees, {place}, tower"),
            said("Wait."),
            user("Well?"),
            last,
        ]
        chosen = (several, with_tool, several, [last])[i % 4]
        rejected = ([said("No idea.")], [said("Hm."), user("And?"), said("No idea at all.")])[i % 4 in (1, 2)]
        found.append({"prompt": [user(f"How is {place} {i}?")], "chosen": chosen, "rejected": rejected})
    return found


class Hand:
    """Log-probabilities of the assistant's turns, one sequence at a time, summed in float64."""

    def __init__(self, folder: Path) -> None:
        from transformers import AutoModelForCausalLM, AutoTokenizer

        tokens = AutoTokenizer.from_pretrained(folder)
        self.head = tokens.encode("<|im_start|>assistant\n", add_special_tokens=False)
        self.end = tokens.convert_tokens_to_ids("<|im_end|>")
        self.reference = AutoModelForCausalLM.from_pretrained(folder).eval()

    def mask(self, ids: list[int]) -> list[bool]:
        """From each assistant header to its end-of-turn token; every assistant turn here is of the answer."""
        mask, inside = [False] * len(ids), False
        for at, token in enumerate(ids):
            mask[at] = inside = inside or ids[max(at - len(self.head), 0) : at] == self.head
            inside = inside and token != self.end
        return mask

    def tokens(self, model: Any, ids: list[int]) -> Any:
        import torch

        with torch.no_grad():
            logits = model(input_ids=torch.tensor([ids])).logits[0, :-1].double()
        return logits.log_softmax(1).gather(1, torch.tensor(ids[1:])[:, None])[:, 0]

    def answer(self, model: Any, ids: list[int]) -> float:
        import torch

        return float(self.tokens(model, ids)[torch.tensor(self.mask(ids)[1:])].sum())

    def likelihood(self, model: Any, rows: list[list[int]]) -> float:
        """Mean over the tokens of all rows up to the first answer, and of their assistant turns."""
        import torch

        found = []
        for ids in rows:
            mask = self.mask(ids)
            kept = [counts or at < mask.index(True) for at, counts in enumerate(mask)]
            found.append(self.tokens(model, ids)[torch.tensor(kept[1:])])
        return -float(torch.cat(found).mean())


def unpadded(inputs: Any, prefix: str = "") -> list[list[int]]:
    rows = zip(inputs[f"{prefix}input_ids"], inputs[f"{prefix}attention_mask"], strict=True)
    return [ids[mask.bool()].tolist() for ids, mask in rows]


def dpo_by_hand(hand: Hand, model: Any, inputs: Any, loss: str) -> float:
    import torch

    sequences = unpadded(inputs)
    per_token = [sum(hand.mask(ids)) if loss == "IPO" else 1 for ids in sequences]
    ratios = torch.tensor([hand.answer(model, ids) - hand.answer(hand.reference, ids) for ids in sequences]).double()
    chosen, rejected = (ratios / torch.tensor(per_token)).chunk(2)
    margin = chosen - rejected
    return float(((margin - 5) ** 2 if loss == "IPO" else -torch.nn.functional.logsigmoid(0.1 * margin)).mean())


def kto_by_hand(hand: Hand, model: Any, inputs: Any, _: str) -> float:
    import torch

    def ratios(prefix: str) -> Any:
        rows = unpadded(inputs, prefix)
        return torch.tensor([hand.answer(model, ids) - hand.answer(hand.reference, ids) for ids in rows]).double()

    kl = ratios("KL_").mean().clamp(min=0)
    signs = torch.where(inputs["label"], 1.0, -1.0).double()
    return float((1 - torch.sigmoid(0.1 * signs * (ratios("") - kl))).mean())


def orpo_by_hand(hand: Hand, model: Any, inputs: Any, _: str) -> float:
    import torch

    def odds(prefix: str) -> Any:
        rows = unpadded(inputs, prefix)
        mean = torch.tensor([hand.answer(model, ids) / sum(hand.mask(ids)) for ids in rows]).double()
        return mean - torch.log(-torch.expm1(mean))

    ratio = torch.nn.functional.logsigmoid(odds("chosen_") - odds("rejected_"))
    return hand.likelihood(model, unpadded(inputs, "chosen_")) - 0.1 * float(ratio.mean())


def reward_by_hand(hand: Hand, model: Any, inputs: Any, _: str) -> float:
    import torch

    with torch.no_grad():
        found = [float(model(input_ids=torch.tensor([ids])).logits) for ids in unpadded(inputs)]
    chosen, rejected = torch.tensor(found).double().chunk(2)
    return -float(torch.nn.functional.logsigmoid(chosen - rejected).mean())


def trainers() -> dict[str, tuple[Any, Callable[..., float]]]:
    from trl.experimental.orpo import ORPOTrainer

    return {
        "DPO": (Contrasted, dpo_by_hand),
        "KTO": (Valued, kto_by_hand),
        "ORPO": (ORPOTrainer, orpo_by_hand),
        "Reward": (Ranked, reward_by_hand),
    }


class Watched:
    """Every loss of a run and every log-probability of its evaluation, next to those by hand."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, hand: Hand, method: str, loss: str) -> None:
        self.losses: list[tuple[float, float]] = []
        self.scores: list[tuple[list[list[float]], list[list[float]]]] = []
        self._hand, self._loss = hand, loss
        kind, self._by_hand = trainers()[method]
        theirs, log_probs = kind.compute_loss, pairs.log_probs

        def compute(trainer: Any, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
            expected = self._expected(trainer.model, dict(inputs))
            found = theirs(trainer, model, inputs, *args, **kwargs)
            self.losses.append((float(found.detach()), expected))
            return found

        def score(run: Any, model: Any, rows: Any, poll: Any, *, prompts: bool = False) -> Any:
            found = log_probs(run, model, rows, poll, prompts=prompts)
            ours = [[hand.answer(model, ids) for ids in row.sequences] for row in rows]
            self.scores.append(([row[: len(rows[0].sequences)] for row in found], ours))
            return found

        monkeypatch.setattr(kind, "compute_loss", compute)
        monkeypatch.setattr(pairs, "log_probs", score)

    def _expected(self, model: Any, inputs: Any) -> float:
        was_training = model.training
        model.eval()
        try:
            return self._by_hand(self._hand, model, inputs, self._loss)
        finally:
            model.train(was_training)


@pytest.mark.parametrize(
    ("method", "adapter", "loss"),
    [
        ("DPO", "LoRA", "Sigmoid"),
        ("DPO", "None", "IPO"),
        ("KTO", "LoRA", ""),
        ("KTO", "None", ""),
        ("ORPO", "LoRA", ""),
        ("Reward", "LoRA", ""),
    ],
)
def test_every_loss_of_a_run_is_that_of_the_assistants_tokens(
    runs: Any,
    make_plan: Any,
    tiny_model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    method: str,
    adapter: str,
    loss: str,
) -> None:
    rows = preferences()
    train, held_out = (
        split_files.write(tmp_path / "train.jsonl", rows[:16], "turns"),
        split_files.write(tmp_path / "validation.jsonl", rows[16:], "turns"),
    )
    fields = {"dpo": {"loss": loss}} if loss else {}
    training = {"maxSteps": 3, "batchSize": 4, "learningRate": "5e-3" if adapter == "LoRA" else "1e-3"}
    sources = {"datasets": [train], "evaluationDatasets": [held_out], "adapter": {"type": adapter}}
    watched = Watched(monkeypatch, Hand(tiny_model), method, loss)
    result = runs.finish(make_plan(method=method, training=training, **sources, **fields))
    assert len(watched.losses) == 3
    for found, expected in watched.losses:
        assert found == pytest.approx(expected, rel=1e-4, abs=1e-6)
    assert len({round(expected, 6) for _, expected in watched.losses}) == 3, "the model changed"
    assert watched.scores or method == "Reward"
    for found, expected in watched.scores:
        for ours, theirs in zip(found, expected, strict=True):
            assert ours == pytest.approx(theirs, rel=1e-4, abs=1e-4)
    assert {number.name for number in result.numbers} >= {"loss", "reward_accuracy", "reward_margin"}


def test_orpos_held_out_loss_is_that_of_training(runs: Any, make_plan: Any, tmp_path: Path) -> None:
    """On one row, so that a mean over rows is the mean over tokens."""
    rows = split_files.write(tmp_path / "one.jsonl", preferences()[1:2], "turns")
    sources = {"datasets": [rows], "evaluationDatasets": [rows], "training": {"maxSteps": 1, "batchSize": 1}}
    plan = make_plan(method="ORPO", **sources)
    (found,) = [number for number in runs.finish(plan).numbers if number.name == "loss"]
    assert float(found.base) == pytest.approx(runs.curve(plan)[0][1], rel=1e-4)


def test_two_processes_train_like_one(runs: Any, make_plan: Any, tmp_path: Path) -> None:
    rows = preferences()
    train, held_out = (
        split_files.write(tmp_path / "train.jsonl", rows[:16], "turns"),
        split_files.write(tmp_path / "validation.jsonl", rows[16:], "turns"),
    )
    common = {"method": "DPO", "adapter": {"type": "None"}, "training": {"maxSteps": 3, "learningRate": "1e-3"}}
    common |= {"datasets": [train], "evaluationDatasets": [held_out], "evaluation": {"samples": 0}}
    alone, pair = make_plan("alone", **common), make_plan("pair", processesPerNode=2, **common)
    result, expected = runs.wait(pair, runs.start(runs.encoded(pair))).result, runs.finish(alone)
    ours, theirs = ([loss for _, loss, _ in runs.curve(plan, "full")] for plan in (pair, alone))
    assert ours == pytest.approx(theirs, abs=1e-4)
    for found, number in zip(result.numbers, expected.numbers, strict=True):
        assert float(found.tuned) == pytest.approx(float(number.tuned), abs=1e-4)


def test_an_interrupted_run_equals_an_undisturbed_one(
    runs: Any, make_plan: Any, tmp_path: Path, interrupt: Callable[[Any, int], Any]
) -> None:
    rows = split_files.write(tmp_path / "train.jsonl", preferences(), "turns")
    common = {"method": "ORPO", "datasets": [rows], "held_out": False, "training": {"learningRate": "1e-3"}}
    whole, broken = make_plan("whole", **common), make_plan("broken", **common)
    runs.finish(whole)
    interrupt(broken, 4)
    assert runs.finish(broken).start_step == 5
    assert runs.curve(broken) == runs.curve(whole)
