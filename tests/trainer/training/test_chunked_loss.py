"""The loss head against plain cross-entropy, and in place of TRL's on a real model."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from hone_trainer.training import chunked_loss

pytestmark = pytest.mark.trainer
ROOT = Path(__file__).resolve().parents[3]
TOKENS, HIDDEN, VOCABULARY = 300, 64, 1000


@pytest.mark.parametrize("frozen", [True, False], ids=["frozen head", "trained head"])
@pytest.mark.parametrize("with_bias", [True, False], ids=["bias", "no bias"])
def test_values_and_gradients_are_those_of_log_softmax(frozen: bool, with_bias: bool) -> None:
    torch.manual_seed(0)
    hidden = torch.randn(TOKENS, HIDDEN, requires_grad=True)
    weight = torch.randn(VOCABULARY, HIDDEN, requires_grad=not frozen)
    bias = torch.randn(VOCABULARY, requires_grad=not frozen) if with_bias else None
    labels, upstream = torch.randint(0, VOCABULARY, (TOKENS,)), torch.randn(TOKENS)
    trained = [t for t in (hidden, weight, bias) if t is not None and t.requires_grad]

    log_probs, entropy, is_top1 = chunked_loss.token_log_probs(hidden, weight, bias, labels)
    ours = torch.autograd.grad((log_probs * upstream).sum(), trained)
    everything = torch.nn.functional.linear(hidden, weight, bias).log_softmax(1)
    expected = everything.gather(1, labels[:, None])[:, 0]
    theirs = torch.autograd.grad((expected * upstream).sum(), trained)

    torch.testing.assert_close(log_probs, expected)
    torch.testing.assert_close(entropy, -(everything.exp() * everything).sum(1))
    assert torch.equal(is_top1, everything.argmax(1) == labels)
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, other, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("head_frozen", [True, False])
def test_a_model_has_the_same_loss_and_gradients_as_with_trls_head(tiny_model: Path, head_frozen: bool) -> None:
    from transformers import AutoModelForCausalLM
    from trl.trainer.utils import add_fused_lm_head

    torch.manual_seed(0)
    ids = torch.randint(5, 100, (3, 40))
    labels = ids.clone()
    labels[:, :15] = chunked_loss.IGNORED
    labels[1] = chunked_loss.IGNORED  # a row without any counted token
    found = []
    for ours in (False, True):
        model = AutoModelForCausalLM.from_pretrained(tiny_model)
        model.get_output_embeddings().weight.requires_grad_(not head_frozen)
        add_fused_lm_head(model, outputs=("log_probs", "entropy", "is_top1"))
        if ours:
            chunked_loss.install(model)
        out = model(input_ids=ids, labels=labels, fused_lm_head=True, num_items_in_batch=torch.tensor(50))
        out.loss.backward()
        found.append((out, {n: p.grad for n, p in model.named_parameters() if p.grad is not None}))
    (theirs, their_grads), (mine, my_grads) = found
    torch.testing.assert_close(mine.loss, theirs.loss)
    torch.testing.assert_close(mine.log_probs, theirs.log_probs)
    torch.testing.assert_close(mine.entropy, theirs.entropy)
    assert torch.equal(mine.is_top1.bool(), theirs.is_top1.bool())
    assert my_grads.keys() == their_grads.keys()
    for name, grad in my_grads.items():
        torch.testing.assert_close(grad, their_grads[name], atol=1e-6, rtol=1e-4, msg=name)


def test_generation_and_plain_logits_are_left_as_they_were(tiny_model: Path) -> None:
    from transformers import AutoModelForCausalLM
    from trl.trainer.utils import add_fused_lm_head

    model = AutoModelForCausalLM.from_pretrained(tiny_model).eval()
    ids = torch.randint(5, 100, (1, 8))
    options = {"max_new_tokens": 6, "do_sample": False, "pad_token_id": 0, "eos_token_id": None}
    before, logits = model.generate(ids, **options), model(input_ids=ids).logits
    add_fused_lm_head(model)
    chunked_loss.install(model)
    assert torch.equal(model.generate(ids, **options), before)
    assert torch.equal(model(input_ids=ids).logits, logits)


def test_images_that_have_triton_keep_the_compiler_that_its_driver_needs(tmp_path: Path) -> None:
    """On a GPU, TRL's head is a kernel of Triton, which compiles its own driver when the first kernel starts."""
    (tmp_path / "nothing.c").touch()
    subprocess.run(["gcc", "-shared", "-o", tmp_path / "libcuda.so.1", tmp_path / "nothing.c"], check=True)
    program = (
        "from pathlib import Path; from triton.backends.nvidia import driver; from triton.runtime import build\n"
        "source = (Path(driver.dirname) / 'driver.c').read_text()\n"
        f"build.compile_so_from_src(source, 'cuda_utils', ['{tmp_path}'], driver.include_dirs, driver.libraries)"
    )
    with_compiler, without = ({**os.environ, "TRITON_CACHE_DIR": str(tmp_path / name)} for name in ("with", "without"))
    subprocess.run([sys.executable, "-c", program], check=True, env=with_compiler)
    without |= {"PATH": str(tmp_path)}
    ended = subprocess.run([sys.executable, "-c", program], check=False, env=without, capture_output=True, text=True)
    assert "Failed to find C compiler" in ended.stderr

    stages = re.split(r"^FROM ", (ROOT / "Dockerfile").read_text(), flags=re.MULTILINE)
    with_triton = [stage for stage in stages if "-r /requirements/trainer.txt" in stage or "vllm.txt" in stage]
    assert len(with_triton) == 2
    for stage in with_triton:
        kept = [layer for layer in re.split(r"^RUN ", stage, flags=re.MULTILINE) if "apt-get purge" not in layer]
        assert any("python3-dev" in layer and ("gcc" in layer or "g++" in layer) for layer in kept)
