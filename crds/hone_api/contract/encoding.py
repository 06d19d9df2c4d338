"""Where the encoded rows of a split are stored: an address computed from everything that the encoding depends on.

Operator and trainer compute it from the plan only. Two jobs whose splits have the same key read the same folder,
`<plan.encoded_path>/<key>`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any

from hone_api.base.meta import Digest
from hone_api.methods import METHODS
from hone_api.plan import DatasetInput, TrainingPlan

ENCODER_VERSION = 6
"""Increment it with every change that makes equal rows give other tokens, labels or files: in the trainer's encoders,
in its format on disk, or in the libraries that render and tokenise (see `tests/api/contract/test_encoding.py`)."""
KEY_LENGTH = 40
"""Hexadecimal digits of a key."""
FOLDER = "encoded"
"""Folder of a store with the folders of all keys."""
_UNCHECKED = "sha256:" + "0" * 64


def key(plan: TrainingPlan, source: DatasetInput, model: str | None = None) -> str | None:
    """The address of an encoded split of the plan; None if the plan does not define all that the tokens depend on.

    Args:
        source: one of the plan's `datasets` or `evaluation_datasets`.
        model: identity of the model's config, tokenizer and template; None: see `model_identity`.
    """
    model = model or model_identity(plan)
    if model is None or source.digest == _UNCHECKED or is_answered_later(plan):
        return None
    return address(plan, [source.digest, source.split], model)


def address(plan: TrainingPlan, rows: list[str], model: str) -> str:
    """The same of rows and a model that are known by other names than the plan's.

    Args:
        rows: what identifies the rows.
        model: what identifies the model's config, tokenizer and template.
    """
    body = {
        "version": ENCODER_VERSION,
        "rows": rows,
        "model": model,
        "maxLength": plan.training.max_length,
        "truncation": plan.training.truncation,
        "encodes": METHODS[plan.method].encodes,
        **_options(plan),
    }
    if plan.training.thinking != "Auto":
        body["thinking"] = plan.training.thinking
    if plan.training.rope_scaling:  # rows may have so many more tokens
        body["ropeScaling"] = plan.training.rope_scaling.to_json()
    if plan.template_date and body["encodes"] != "Documents":  # some chat templates print it
        body["date"] = plan.template_date.isoformat()
    return _hash(body)[:KEY_LENGTH]


def model_identity(plan: TrainingPlan) -> str | None:
    """The identity of the base model's files, whatever folder they are in; None: the plan has neither digest nor
    commit."""
    if plan.model_digest is None and plan.model_commit is None:
        return None
    own = plan.model_digest or f"{plan.model_uri}@{plan.model_commit}"
    return f"{own}+{plan.model_adapter.digest}" if plan.model_adapter else own


def is_answered_later(plan: TrainingPlan) -> bool:
    """Whether a teacher writes the answers after the run has started, so that nothing can be encoded before."""
    return plan.distillation is not None and not plan.distillation.by_logits


def splits(plan: TrainingPlan) -> list[DatasetInput]:
    """The splits to encode for the plan, each once, training splits first."""
    by_path: dict[tuple[str, str], DatasetInput] = {}
    for source in (*plan.datasets, *plan.evaluation_datasets):
        by_path.setdefault((source.path, source.digest), source)
    return list(by_path.values())


def keys(plan: TrainingPlan) -> list[str] | None:
    """The keys of `splits`, each once; None if one of them is unknown before the run."""
    all_keys = [key(plan, source) for source in splits(plan)]
    return None if None in all_keys else list(dict.fromkeys(name for name in all_keys if name is not None))


def digest(manifests: Mapping[str, Digest]) -> Digest:
    """One digest over the encoded splits of a plan, from their keys and the digests of their manifest.json."""
    return f"sha256:{_hash(sorted(manifests.items()))}"


def _options(plan: TrainingPlan) -> dict[str, Any]:
    """The options of the method that affect its tokens."""
    match METHODS[plan.method].encodes:
        case "Conversations":  # for Distillation, only at level Logits
            return {"trainOn": "Assistant" if plan.distillation else plan.sft.train_on}
        case "Prompts":
            own = plan.grpo or plan.ppo
            return {"maxCompletionLength": own.max_completion_length if own else None}
    return {}


def _hash(body: Mapping[str, Any] | Iterable[Any]) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
