"""How near GRPO's gradient is to the exact one, by each of TRL's corrections for samples of another model.

    make setup && OMP_NUM_THREADS=1 .venv/bin/python bench/grpo_correction.py [--samples 512] [--lengths 64]

vLLM's build for CPUs samples answers of a fixed length from a tiny random model, from all tokens or from a nucleus. The
trainer has the same weights rounded to bfloat16 or to 8 bits, so the two are some nats a token apart. The reward
is the mean of a score of each token. A correction multiplies the loss of each token by a weight; the exact gradient has
samples at topP 1, each weighted by the whole ratio of the trainer's probability to vLLM's, without a bound, which is
unbiased. Printed for each correction:

    bias      |E[gradient] - exact| / |exact|, with one standard error
    scale     length of the gradient along the exact one
    cosine    between E[gradient] and the exact one
    variance  of a batch's gradient, as a multiple of that without correction
    weight    mean over tokens

Expectations of products are taken over pairs of different batches, so that noise does not count as bias; a square that
comes out below 0 is printed as 0.000, and what is smaller than its error is not known. The default takes 5 minutes.
"""

from __future__ import annotations

import argparse
import copy
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import requests
import torch
from rich.console import Console
from rich.table import Table

from hone_dev.models import vllm

VOCABULARY, PROMPT, BATCHES, BOUND = 64, [1, 2, 3, 4], 32, 3.0
"""BOUND is TRL's vllm_importance_sampling_clip_max."""


def _whole(log_ratio: Any) -> Any:
    return log_ratio.sum(1, keepdim=True).exp().expand_as(log_ratio)


def _masked(ratio: Any) -> Any:
    return ratio.masked_fill(ratio > BOUND, 0.0)


CORRECTIONS: dict[str, Callable[[Any], Any]] = {
    "none": torch.ones_like,
    "token_truncate": lambda log_ratio: log_ratio.exp().clamp(max=BOUND),
    "token_mask": lambda log_ratio: _masked(log_ratio.exp()),
    "sequence_truncate": lambda log_ratio: _whole(log_ratio).clamp(max=BOUND),
    "sequence_mask": lambda log_ratio: _masked(_whole(log_ratio)),
}
"""TRL's vllm_importance_sampling_mode -> weights of tokens, by the logarithm of their ratio: (samples, tokens)."""


@dataclass(frozen=True)
class Case:
    """A trainer's weights and how vLLM samples."""

    title: str
    dtype: torch.dtype
    """That the trainer's weights are rounded to."""
    top_p: float = 1.0


CASES = (
    Case("bfloat16", torch.bfloat16),
    Case("8 bits", torch.float8_e4m3fn),
    Case("bfloat16, topP 0.95", torch.bfloat16, 0.95),
    Case("bfloat16, topP 0.8", torch.bfloat16, 0.8),
)


@dataclass(frozen=True)
class Samples:
    """Answers and the log-probabilities that vLLM gave their tokens: (samples, tokens)."""

    tokens: Any
    log_probs: Any


def make_model(folder: Path) -> Any:
    """A random Llama whose next token has about 2.8 nats of entropy, saved with a tokenizer that vLLM asks for."""
    from tokenizers import Tokenizer, models
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    torch.manual_seed(0)
    sizes = {"hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 2, "head_dim": 64}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 1, "max_position_embeddings": 512}
    network = LlamaForCausalLM(LlamaConfig(vocab_size=VOCABULARY, initializer_range=0.08, **sizes, **heads))
    network.lm_head.weight.data.normal_(std=0.15)
    network.save_pretrained(folder)
    words = Tokenizer(models.WordLevel({f"t{i}": i for i in range(VOCABULARY)}, unk_token="t0"))
    PreTrainedTokenizerFast(tokenizer_object=words, eos_token="t0").save_pretrained(folder)
    return network


def rounded(network: Any, dtype: torch.dtype) -> Any:
    """A copy with the weights of its layers rounded to `dtype`, each row scaled by its largest."""
    twin = copy.deepcopy(network)
    for module in twin.model.modules():
        if isinstance(module, torch.nn.Linear):
            scale = module.weight.data.abs().amax(1, keepdim=True) / torch.finfo(torch.float8_e4m3fn).max
            module.weight.data = (module.weight.data / scale).to(dtype).float() * scale
    return twin


def sample(url: str, model: Path, top_p: float, count: int, length: int) -> Samples:
    """Ask the server for answers of exactly `length` tokens, 64 a request."""
    body = {
        **{"model": str(model), "prompt": PROMPT, "n": 64, "max_tokens": length},
        **{"temperature": 1.0, "top_p": top_p, "ignore_eos": True, "logprobs": 0, "return_token_ids": True},
    }

    def ask(seed: int) -> list[dict[str, Any]]:
        # vLLM gives the samples of a request the seeds that follow its own.
        answer = requests.post(f"{url}/v1/completions", json={**body, "seed": 64 * seed}, timeout=600)
        answer.raise_for_status()
        return answer.json()["choices"]

    with ThreadPoolExecutor(4) as pool:
        choices = [choice for answer in pool.map(ask, range(count // 64)) for choice in answer]
    log_probs = torch.tensor([choice["logprobs"]["token_logprobs"] for choice in choices])
    return Samples(torch.tensor([choice["token_ids"] for choice in choices]), log_probs)


@dataclass(frozen=True)
class Gradients:
    """Of each batch by each weighting: (batches, parameters); with how far vLLM is from the trainer in nats a token."""

    by_name: dict[str, Any]
    weights: dict[str, float]
    difference: float


def gradients(network: Any, samples: Samples, weightings: dict[str, Callable[[Any], Any]], std: float) -> Gradients:
    """Of the mean over tokens of weight x advantage x log-probability; advantages are divided by `std`."""
    found: dict[str, list[Any]] = {name: [] for name in weightings}
    weights = dict.fromkeys(weightings, 0.0)
    rewards = reward_of(samples.tokens)
    advantages, difference = (rewards - rewards.mean()) / std, 0.0
    for rows in torch.arange(len(rewards)).chunk(BATCHES):
        tokens, theirs = samples.tokens[rows], samples.log_probs[rows]
        prompt = torch.tensor(PROMPT).expand(len(rows), -1)
        logits = network(torch.cat([prompt, tokens], 1)).logits[:, len(PROMPT) - 1 : -1]
        ours = logits.log_softmax(-1).gather(2, tokens[..., None])[..., 0]
        log_ratio = ours.detach() - theirs
        difference += float(log_ratio.abs().mean()) / BATCHES
        for name, weigh in weightings.items():
            weight = weigh(log_ratio)
            weights[name] += float(weight.mean()) / BATCHES
            loss = (weight * advantages[rows, None] * ours).mean()
            parts = torch.autograd.grad(loss, list(network.parameters()), retain_graph=True)
            found[name].append(torch.cat([part.flatten() for part in parts]))
    return Gradients({name: torch.stack(batches) for name, batches in found.items()}, weights, difference)


def reward_of(tokens: Any) -> Any:
    """The mean of a fixed score of each token: (samples)."""
    scores = torch.randn(VOCABULARY, generator=torch.Generator().manual_seed(1))
    return scores[tokens].mean(1)


def product(inner: Any) -> float:
    """Of the expectations of two gradients, by the inner products of their batches; of pairs of different ones."""
    return float(inner.sum() - inner.trace()) / (len(inner) * (len(inner) - 1))


@dataclass(frozen=True)
class Comparison:
    """Inner products of the batches of a gradient and of the exact one: (batches, batches) each."""

    mine: Any
    mixed: Any
    exact: Any

    @classmethod
    def of(cls, mine: Any, exact: Any) -> Comparison:
        """Of gradients, (batches, parameters) each."""
        mine, exact = mine.double(), exact.double()
        return cls(mine @ mine.T, mine @ exact.T, exact @ exact.T)

    def without(self, batch: int) -> Comparison:
        """All batches but one."""
        keep = torch.arange(len(self.mine)) != batch
        return Comparison(*(inner[keep][:, keep] for inner in (self.mine, self.mixed, self.exact)))

    @property
    def bias(self) -> float:
        """Relative length of the difference of the expectations."""
        square = product(self.mine) - 2 * product(self.mixed) + product(self.exact)
        return (max(square, 0.0) / product(self.exact)) ** 0.5

    @property
    def error(self) -> float:
        """Standard error of `bias` by the jackknife: each batch left out once."""
        values = torch.tensor([self.without(i).bias for i in range(len(self.mine))])
        return float(((len(values) - 1) * values.var(unbiased=False)) ** 0.5)

    @property
    def scale(self) -> float:
        return product(self.mixed) / product(self.exact)

    @property
    def cosine(self) -> float:
        return product(self.mixed) / (max(product(self.mine), 1e-30) * product(self.exact)) ** 0.5


def add_rows(table: Table, title: str, found: Gradients, exact: Any) -> None:
    plain = found.by_name["none"].var(0).sum()
    for name, mine in found.by_name.items():
        one, variance = Comparison.of(mine, exact), float(mine.var(0).sum() / plain)
        cells = f"{one.scale:.2f}", f"{one.cosine:.2f}", f"{variance:.2f}", f"{found.weights[name]:.3g}"
        table.add_row(title, f"{found.difference:.4f}", name, f"{one.bias:.3f} ± {one.error:.3f}", *cells)
        title = ""


def measure(network: Any, samples: dict[float, Samples], length: int, table: Table) -> None:
    """All cases at one length; `samples` by their topP."""
    std = float(reward_of(samples[1.0].tokens).std())
    for case in CASES:
        trainer = rounded(network, case.dtype)
        exact = gradients(trainer, samples[1.0], {"exact": _whole}, std).by_name["exact"]
        found = gradients(trainer, samples[case.top_p], CORRECTIONS, std)
        add_rows(table, f"{case.title}, {length} tokens", found, exact)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=512, help="of each topP and length; a multiple of 64")
    parser.add_argument("--lengths", type=int, nargs="+", default=[64], help="tokens of an answer, at most 500")
    options = parser.parse_args()
    table = Table("case", "nats", "correction", "bias", "scale", "cosine", "variance", "weight")
    nuclei = sorted({case.top_p for case in CASES})
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "model"
        network = make_model(folder)
        with vllm.serve(folder, Path(temporary) / "log", rank=8, longest=512) as url:
            samples = {
                length: {top_p: sample(url, folder, top_p, options.samples, length) for top_p in nuclei}
                for length in options.lengths
            }
    for length in options.lengths:
        measure(network, samples[length], length, table)
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
