"""Peak memory and time of the loss head: ours next to TRL's fused head and plain cross-entropy, in one run.

    make setup && .venv/bin/python bench/loss_head.py [--pairs 3] [--tokens 1024] [--vocabulary 49152]

Each measurement is a process of its own: one forward and backward pass over hidden states, half of them masked, as
the prompts of a chat are. Memory is the peak above what the process held before the pass. On a CPU only: on a GPU the
head is TRL's own. Exit code 1 when ours needs more than half of TRL's memory.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from typing import Any

from rich.console import Console
from rich.table import Table

LARGEST_RATIO = 0.5
HEADS = ("plain", "trl", "hone")
HIDDEN = 576


def measure(head: str, tokens: int, vocabulary: int, trained: bool) -> dict[str, float]:
    """One pass in this process: {'mib': peak above the start, 'seconds': of the pass, 'loss': its value}."""
    import torch

    torch.manual_seed(0)
    model = _model(vocabulary)
    model.lm_head.weight.requires_grad_(trained)
    hidden = torch.randn(1, tokens, HIDDEN, requires_grad=True)
    model.model.forward = lambda *_, **__: type("Hidden", (), {"last_hidden_state": hidden})()
    labels = torch.randint(0, vocabulary, (1, tokens))
    labels[:, : tokens // 2] = -100
    if head != "plain":
        from trl.trainer.utils import add_fused_lm_head

        from hone_trainer.training import chunked_loss

        add_fused_lm_head(model, outputs=("log_probs", "entropy", "is_top1"))
        if head == "hone":
            chunked_loss.install(model)
    if trained:
        model.lm_head.weight.grad = torch.zeros_like(model.lm_head.weight)
    before = _peak_reset()
    start = time.perf_counter()
    if head == "plain":
        logits = model.lm_head(hidden)[:, :-1]
        loss = torch.nn.functional.cross_entropy(logits.reshape(-1, vocabulary).float(), labels[:, 1:].reshape(-1))
    else:
        loss = model(input_ids=labels, labels=labels, fused_lm_head=True).loss
    loss.backward()
    return {"mib": _peak() - before, "seconds": time.perf_counter() - start, "loss": loss.item()}


def _model(vocabulary: int) -> Any:
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        hidden_size=HIDDEN,
        intermediate_size=64,
        num_hidden_layers=1,
        num_attention_heads=4,
        vocab_size=vocabulary,
        tie_word_embeddings=False,
    )
    return LlamaForCausalLM(config)


def _peak_reset() -> float:
    """MiB resident now, after the kernel's high-water mark was set to it."""
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")
    return _peak()


def _peak() -> float:
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) / 1024 for line in file if line.startswith("VmHWM"))


def _in_process(head: str, options: argparse.Namespace, trained: bool) -> dict[str, float]:
    arguments = [sys.executable, __file__, "--one", head, "--tokens", str(options.tokens)]
    arguments += ["--vocabulary", str(options.vocabulary), *(["--trained"] if trained else [])]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(arguments, env=env, check=True, capture_output=True, text=True)
    return dict(json.loads(done.stdout.splitlines()[-1]))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=3, help="rounds over the heads, default 3")
    parser.add_argument("--tokens", type=int, default=1024, help="positions of the batch, default 1024")
    parser.add_argument("--vocabulary", type=int, default=49_152)
    parser.add_argument("--one", choices=HEADS, help=argparse.SUPPRESS)
    parser.add_argument("--trained", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measure(options.one, options.tokens, options.vocabulary, options.trained)))
        return 0
    table = Table("head", "weights", "peak MiB", "x TRL", "seconds", "x TRL", "loss")
    worst = 0.0
    for trained in (False, True):
        runs: dict[str, list[dict[str, float]]] = {head: [] for head in HEADS}
        for _ in range(options.pairs):
            for head in HEADS:
                runs[head].append(_in_process(head, options, trained))
        middle = {head: {k: statistics.median(r[k] for r in found) for k in found[0]} for head, found in runs.items()}
        trl = middle["trl"]
        worst = max(worst, middle["hone"]["mib"] / trl["mib"])
        for head, m in middle.items():
            table.add_row(
                head,
                "trained" if trained else "frozen",
                f"{m['mib']:.0f}",
                f"{m['mib'] / trl['mib']:.2f}",
                f"{m['seconds']:.2f}",
                f"{m['seconds'] / trl['seconds']:.2f}",
                f"{m['loss']:.6f}",
            )
    Console().print(table)
    verdict = "held" if worst <= LARGEST_RATIO else "MISSED"
    print(f"peak memory against TRL's head: at most {worst:.2f} (bound {LARGEST_RATIO}): {verdict}")
    return 0 if worst <= LARGEST_RATIO else 1


if __name__ == "__main__":
    sys.exit(main())
