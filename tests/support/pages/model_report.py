"""A report of a model in which every text attacks the reader, with its curves."""

from __future__ import annotations

from typing import Any

EVIL = '<script>alert("x")</script>'
REPORT: dict[str, Any] = {
    "form": "Adapter",
    "plan": {"run": "r", "method": "SFT", "modelUri": "hf://a/b", "output": {"modelName": EVIL}},
    "resolved": {"learningRate": "2e-4"},
    "steps": 1200,
    "rows": 2400,
    "effort": {
        "seconds": 5400.0,
        "gpus": 2,
        "gpu_hours": 3.0,
        "peak_memory_bytes": 3 * 2**30,
        "tokens_per_second": 1234.5678,
        "start_step": 0,
        "finished": "2026-11-26T21:30:00+00:00",
    },
    "numbers": [
        {
            "name": "loss",
            "dataset": "rows/validation",
            "base": "3.0",
            "tuned": "2.5",
            "low": "2.4",
            "high": "2.6",
            "changeLow": "-0.6",
            "changeHigh": "-0.4",
            "purpose": "HeldOut",
            "rows": 8,
        },
        {
            "name": "perplexity",
            "dataset": "general/test",
            "base": "10.0",
            "tuned": "11.0",
            "changeLow": "0.5",
            "changeHigh": "1.5",
            "purpose": "Retention",
            "rows": 8,
        },
        {
            "name": "token_accuracy",
            "dataset": "rows/validation",
            "base": "0.5",
            "tuned": "0.6",
            "changeLow": "-0.1",
            "changeHigh": "0.3",
            "purpose": "HeldOut",
            "rows": 8,
        },
    ],
    "samples": [{"prompt": EVIL, "base": "no", "tuned": EVIL, "reference": "yes"}],
    "data": {"rows/train": EVIL},
    "example": [{"text": "<|im_start|>user", "trained": False}, {"text": EVIL, "trained": True}],
    "advice": [EVIL],
    "rejected": "",
    "interpolation": [{"weight": 0.2, "metrics": {"loss on rows/validation": 2.75}}],
    "lowest": ["word_perplexity on wikitext"],
    "notes": [],
}
CURVES = [{"step": s, "loss": 3.0 - s / 10, "grad_norm": 1.0, "learning_rate": 1e-4} for s in range(1, 6)]
EVALUATED = [{"step": s, "eval_loss": 3.1 - s / 10, "eval_token_accuracy": s / 10} for s in (2, 4)]
