"""How a report begins: the verdict, the cards, and commands that suit the form of the model."""

from __future__ import annotations

from typing import Any

import pytest

from hone_trainer.artifacts import run_summary
from hone_trainer.artifacts.run_summary import Effort
from hone_trainer.reporting.html import digits

pytestmark = pytest.mark.trainer
LOSS: dict[str, Any] = {
    "name": "loss",
    "dataset": "rows/validation",
    "base": "3.935037",
    "tuned": "2.499912",
    "changeLow": "-1.551",
    "changeHigh": "-1.32",
    "purpose": "HeldOut",
    "verdict": "good",
}
FORGOTTEN = {**LOSS, "name": "perplexity", "dataset": "general/test", "purpose": "Retention", "verdict": "bad"}


@pytest.mark.parametrize(
    ("numbers", "title", "style"),
    [
        ([LOSS], "Better than the base.", "good"),
        ([{**LOSS, "verdict": "bad"}], "Worse than the base.", "bad"),
        ([{**LOSS, "verdict": ""}], "No clear difference from the base.", ""),
        ([LOSS, {**LOSS, "verdict": "bad"}], "Better on some rows, worse on others.", "bad"),
        ([LOSS, {**LOSS, "verdict": ""}], "Better than the base.", "good"),
        ([{**LOSS, "base": None, "changeLow": None, "verdict": ""}], "Not compared.", ""),
        ([{**LOSS, "name": "token_accuracy"}], "Not measured.", ""),
        ([], "Not measured.", ""),
        ([LOSS, FORGOTTEN], "Better than the base.", "good"),
    ],
)
def test_the_verdict(numbers: list[dict[str, Any]], title: str, style: str) -> None:
    found = run_summary.verdict(numbers, "loss")
    assert (found.title, found.style) == (title, style)


def test_the_verdict_says_by_how_much_with_the_interval_and_what_was_forgotten() -> None:
    assert run_summary.verdict([LOSS, FORGOTTEN], "loss").sentences == [
        "Loss on rows/validation fell from 3.935 to 2.500, −36.5 % (95 % interval of the change: −1.551 to −1.320).",
        "Worse at what should not be forgotten: Perplexity on general/test.",
    ]


def test_a_gate_that_does_not_open_comes_before_everything() -> None:
    found = run_summary.verdict([LOSS], "loss", "too much was forgotten")
    assert (found.title, found.style, found.sentences[0]) == ("Rejected.", "bad", "too much was forgotten")


def report(**changes: Any) -> dict[str, Any]:
    plan = {"method": "SFT", "modelUri": "hf://owner/base@main", "output": {"modelName": "tutor"}, "adapter": {}}
    plan |= changes.pop("plan", {})
    return {"form": "Adapter", "steps": 60, "rows": 1160, "effort": None, "resolved": {}, **changes, "plan": plan}


def test_cards_of_a_run_on_gpus() -> None:
    known = {"tokens_per_second": 12345.6, "useful_tokens": 0.98765, "mfu": 0.4061}
    effort = Effort(5400.0, gpus=2, peak_memory_bytes=3 * 2**30, estimated_memory_bytes=2**31, **known).to_json()
    found = run_summary.cards(report(effort=effort), [LOSS], "loss")
    assert [(card.value, card.label) for card in found] == [
        ("−36.5 %", "Loss: 3.935 → 2.500"),
        ("1 h 30 min", "load, train, evaluate"),
        ("12,350", "tokens per second"),
        ("98.8 %", "of computed tokens are no padding"),
        ("40.6 %", "of the GPUs' peak (MFU)"),
        ("3.00 GiB", "GPU memory, peak of a pod; estimated: 2.00"),
        ("3.00", "GPU-hours on 2 GPUs"),
        ("1,160", "training rows"),
        ("60", "steps"),
        ("base", "base model"),
    ]


def test_an_attempt_that_was_resumed_says_from_which_step_and_a_cpu_has_no_gpu_hours() -> None:
    effort = Effort(48.2, gpus=0, peak_memory_bytes=2**30, start_step=1200).to_json()
    labels = {card.label: card.value for card in run_summary.cards(report(effort=effort), [], "loss")}
    assert labels["load, train, evaluate, from step 1,200"] == "48 s"
    assert labels["GPU-hours: on CPU"] == "0"


def test_a_metric_without_a_true_zero_changes_by_its_difference() -> None:
    number = {**LOSS, "name": "reward", "base": "-0.5", "tuned": "0.25"}
    assert run_summary.cards(report(), [number], "reward")[0].value == "+0.7500"


CURL, TRAINER = "curl -s localhost:8000/v1/chat/completions", "python -m hone_trainer"


@pytest.mark.parametrize(
    ("changes", "commands"),
    [
        ({}, ["python -", "vllm serve owner/base --enable-lora --lora-modules tutor=.", CURL, TRAINER]),
        ({"resolved": {"adapterRank": 24}}, ["python -", "--max-lora-rank 32", CURL, TRAINER]),
        ({"plan": {"adapter": {"type": "DoRA"}}}, ["python -", "python -m hone_trainer"]),
        ({"form": "Merged"}, ["python -", "vllm serve . --served-model-name tutor", CURL, TRAINER]),
        ({"form": "GGUF"}, ["llama-cli -m tutor.gguf", "ollama create tutor", "llama-server", CURL]),
        (
            {"plan": {"modelUri": "pvc://models/base"}},
            ["python -m hone_trainer ask .", "python -m hone_trainer evaluate"],
        ),
        ({"plan": {"method": "Reward"}}, []),
        ({"plan": {"method": "DPO"}}, ["python -", "vllm serve owner/base", CURL]),
    ],
)
def test_commands_suit_the_form_of_the_model(changes: dict[str, Any], commands: list[str]) -> None:
    found = run_summary.next_steps(report(**changes), run_summary.verdict([LOSS], "loss"))
    shown = [step.command for step in found if step.command]
    assert len(shown) == len(commands)
    assert all(part in command for part, command in zip(commands, shown, strict=True))


def test_a_model_that_is_not_better_gets_advice_first() -> None:
    first = run_summary.next_steps(report(), run_summary.verdict([{**LOSS, "verdict": "bad"}], "loss"))[0]
    assert "learningRate" in first.text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("3.935037", "3.935"),
        (2.5, "2.500"),
        (-0.5, "−0.5000"),
        (1289.4, "1289"),
        (98211.0, "98,210"),
        (0.0, "0"),
        (0.00012345, "0.0001234"),
        (2e-05, "2.000e-05"),
        ("nan", "not a number"),
        ("inf", "infinite"),
    ],
)
def test_four_significant_digits(value: float | str, text: str) -> None:
    assert digits(value) == text
