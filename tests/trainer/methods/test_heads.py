"""Loss and gradients of ORPO, PPO and distillation by logits are those of whole logits, for every family."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from contextlib import contextmanager, nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from support.models import families, tiny
from torch.nn import functional

from hone_trainer.methods import divergence, orpo, ppo
from hone_trainer.methods.rl import critic, rollouts
from hone_trainer.training import chunked_loss
from hone_trainer.training.batches.unpadded import Unpadded
from hone_trainer.training.model_check import Look, choose_attention

pytestmark = pytest.mark.trainer
LENGTHS = ((9, 14), (5, 3), (20, 8))
"""Tokens of prompt and answer of each row."""
TEMPERATURE = 1.7
PASSES = [(False, False), (True, False), (False, True), (True, True)]
"""Without padding, with layers that are computed again."""
SCALED = {
    "granite": ("GraniteConfig", {"logits_scaling": 0.25}),
    "cohere2": ("Cohere2Config", {"logit_scale": 3.0, "sliding_window": 64}),
}
"""Families that scale their logits; Gemma 2, which caps them, is among the others."""
Loss = Callable[[Any, bool], Any]
"""Of a model, by whole logits or not."""


@pytest.fixture(autouse=True)
def small_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several of each in a batch."""
    for family, config in SCALED.items():
        monkeypatch.setitem(families.FAMILIES, family, config)
    from trl.kernels import chunked_logprob
    from trl.trainer import utils

    monkeypatch.setattr(chunked_logprob, "TOKEN_CHUNK_SIZE", 10)
    monkeypatch.setattr(utils, "_CHUNKED_LOGPROB_CHUNK_SIZE", 100)
    monkeypatch.setattr(chunked_loss, "CHUNK", 10)
    monkeypatch.setattr(divergence, "CHUNK", 10)


def ids(length: int, seed: int) -> list[int]:
    return torch.randint(3, 500, (length,), generator=torch.Generator().manual_seed(seed)).tolist()


def adapted(model: Any) -> Any:
    from peft import LoraConfig, get_peft_model

    names = ["q_proj", "v_proj", "qkv_proj", "q_b_proj", "o_proj"]
    return get_peft_model(model, LoraConfig(r=4, target_modules=names, init_lora_weights=False, task_type="CAUSAL_LM"))


def learned(
    family: str, adapter: bool, loss: Loss, *, whole: bool, unpadded: bool, recompute: bool, valued: bool
) -> Any:
    """The loss of a model, and its gradients by name."""
    model = families.build(family)
    if valued:
        critic.install(model, frozen=adapter)
        torch.nn.init.normal_(model.value_head.weight, std=0.1)
    held: Any = nullcontext()
    if unpadded:
        choice, why = choose_attention(Look(model, [ids(20, 1), ids(9, 2)], torch.device("cpu")))
        assert not why
        if choice.keeps_rows_apart:
            held = Unpadded(model, choice).with_backward()
    torch.manual_seed(4)
    network = adapted(model) if adapter else model
    network.train()
    if recompute:
        model.gradient_checkpointing_enable()
        model.enable_input_require_grads()
    with held:
        value = loss(network, whole)
        value.backward()
    found = {name: weight.grad for name, weight in network.named_parameters() if weight.grad is not None}
    assert found
    return float(value), found


def check(family: str, adapter: bool, loss: Loss, *, valued: bool = False) -> None:
    expected, theirs = learned(family, adapter, loss, whole=True, unpadded=False, recompute=False, valued=valued)
    largest = max(float(gradient.abs().max()) for gradient in theirs.values())
    assert largest > 0
    for unpadded, recompute in PASSES:
        options = {"unpadded": unpadded, "recompute": recompute, "valued": valued}
        value, found = learned(family, adapter, loss, whole=False, **options)
        assert value == pytest.approx(expected, rel=1e-5)
        assert found.keys() == theirs.keys()
        for name, gradient in found.items():
            assert float((gradient - theirs[name]).abs().max()) <= 1e-5 * largest, (name, unpadded, recompute)


ADAPTED = pytest.mark.parametrize("adapter", [True, False], ids=["LoRA", "None"])
EVERY = pytest.mark.parametrize("family", [*families.FAMILIES, *SCALED])


@EVERY
@ADAPTED
def test_ppo(family: str, adapter: bool) -> None:
    from trl.trainer.utils import add_fused_lm_head

    start, longest = max(p for p, _ in LENGTHS), max(a for _, a in LENGTHS)
    rows = [[2] * (start - p) + ids(p + a, p) + [2] * (longest - a) for p, a in LENGTHS]
    mask = torch.tensor([[0] * (start - p) + [1] * (p + a) + [0] * (longest - a) for p, a in LENGTHS])
    inputs = {"input_ids": torch.tensor(rows), "attention_mask": mask, **rollouts.positions(mask)}
    upstream = torch.randn(2, len(rows), longest, generator=torch.Generator().manual_seed(6)) * mask[:, start:]
    entropies: list[Any] = []

    def loss(model: Any, whole: bool) -> Any:
        if whole:
            out = model(**inputs, use_cache=False, output_hidden_states=True)
            log_p = (out.logits[:, start - 1 : -1] / TEMPERATURE).log_softmax(-1)
            entropies.append(-(log_p.exp() * log_p).sum(-1).detach() * mask[:, start:])
            log_probs = log_p.gather(2, inputs["input_ids"][:, start:, None])[..., 0]
            value_head = (model.get_base_model() if adapter else model).value_head
            values = value_head(out.hidden_states[-1][:, start - 1 : -1])
        else:
            plain = model.get_base_model() if adapter else model
            add_fused_lm_head(plain, temperature=TEMPERATURE, outputs=("log_probs", "entropy"))
            chunked_loss.install(plain, TEMPERATURE)
            seen = critic.views(model, inputs, start, valued=True)
            log_probs, values = seen.log_probs, seen.values
            entropies.append(seen.entropy)
        return (log_probs * upstream[0] + values * upstream[1]).sum()

    check(family, adapter, loss, valued=True)
    for entropy in entropies[1:]:
        torch.testing.assert_close(entropy, entropies[0], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("is_like", [True, False], ids=["by head", "whole"])
@pytest.mark.parametrize("family", ["llama", "gemma2", "granite", "cohere2"])
def test_the_divergence_of_held_out_answers_is_of_the_reference_from_the_policy(
    family: str, is_like: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also for a model whose head cannot be asked alone."""
    from torch.distributions import Categorical, kl_divergence

    torch.manual_seed(4)
    model, prompt, answer = adapted(families.build(family)).eval(), ids(7, 1), ids(33, 2)
    asked: list[int] = []
    ask = divergence.Head.logits
    monkeypatch.setattr(divergence.Head, "logits", lambda self, of: (asked.append(len(of)), ask(self, of))[1])
    if not is_like:
        monkeypatch.setattr(divergence.Side, "is_like", lambda *_: False)
    trainer: Any = SimpleNamespace(
        args=SimpleNamespace(device="cpu"),
        model=model,
        reference=None,
        run=SimpleNamespace(plan=SimpleNamespace(ppo=SimpleNamespace(max_completion_length=60))),
    )
    trainer.scoring_model, trainer.as_reference = lambda: model, lambda: reference()

    @contextmanager
    def reference() -> Any:
        with model.disable_adapter():
            yield model

    with torch.no_grad():
        found = ppo._divergence(trainer, prompt, answer)
        row = torch.tensor([prompt + answer])
        ours = Categorical(logits=model(row).logits[0, len(prompt) - 1 : -1])
        with model.disable_adapter():
            theirs = Categorical(logits=model(row).logits[0, len(prompt) - 1 : -1])
    expected, other_way = float(kl_divergence(ours, theirs).sum()), float(kl_divergence(theirs, ours).sum())
    assert found == pytest.approx(expected, rel=1e-4)
    assert abs(expected - other_way) > 1e-3 * expected, "the direction can be seen"
    assert len(asked) == (1 + 2 * 6 if is_like else 0), "as often as for the longest answer: ranks ask together"


@EVERY
@ADAPTED
def test_distillation_by_logits(family: str, adapter: bool) -> None:
    """Of a teacher of the same family whose embedding is padded further."""
    longest = max(map(sum, LENGTHS))
    rows = torch.tensor([ids(p + a, p) + [2] * (longest - p - a) for p, a in LENGTHS])
    mask = torch.tensor([[1] * (p + a) + [0] * (longest - p - a) for p, a in LENGTHS])
    counts = torch.tensor([[p <= i < p + a for i in range(1, longest)] for p, a in LENGTHS])
    inputs = {"input_ids": rows, "attention_mask": mask}
    sizes = families.config(family)
    sizes.vocab_size += 7
    teacher = families.build(family, sizes).eval().requires_grad_(False)

    def loss(model: Any, whole: bool) -> Any:
        with torch.no_grad():
            theirs = teacher(**inputs).logits
            known, _ = divergence.Side.of(teacher, teacher, inputs, counts)
        if whole:
            p, q = ((x[:, :-1, :512][counts] / TEMPERATURE).log_softmax(-1) for x in (theirs, model(**inputs).logits))
            return functional.kl_div(q, p, log_target=True, reduction="sum") * TEMPERATURE**2
        student, _ = divergence.Side.of(model, model, inputs, counts)
        with torch.no_grad():
            alone = divergence.summed(student, known, TEMPERATURE)
        found = divergence.summed(student, known, TEMPERATURE)
        torch.testing.assert_close(found.detach(), alone)
        return found

    check(family, adapter, loss)


@EVERY
@ADAPTED
def test_orpo(family: str, adapter: bool, tmp_path: Path) -> None:
    """Next to TRL's own, which computes whole logits."""
    from datasets import Dataset
    from trl.experimental.orpo import ORPOConfig, ORPOTrainer
    from trl.trainer.utils import add_fused_lm_head

    rows = [{"prompt_ids": ids(p, p), "chosen_ids": ids(a, a), "rejected_ids": ids(a + 3, a + 1)} for p, a in LENGTHS]
    texts = {"prompt": "", "chosen": "", "rejected": ""}
    columns = [{**row, **orpo._columns(row), **texts} for row in rows]
    kind = orpo._trainer_class()
    args = ORPOConfig(str(tmp_path), use_cpu=True, bf16=False, report_to="none", beta=0.3)

    def loss(model: Any, whole: bool) -> Any:
        add_fused_lm_head(model.get_base_model() if adapter else model, outputs=("log_probs", "mean_logits"))
        chunked_loss.install(model, means=True)
        trainer = kind(model, args, train_dataset=Dataset.from_list(columns[:1]), processing_class=tiny.tokenizer())
        trainer.weight, trainer._kept, trainer._tokens = 1, defaultdict(list), 0
        batch = trainer.data_collator(columns)
        if not whole:
            return trainer.get_batch_loss_metrics(model, batch)[0]
        found, _ = ORPOTrainer.get_batch_loss_metrics(trainer, model, batch)
        return found

    check(family, adapter, loss)
