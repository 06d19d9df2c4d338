"""Keys in models' JSON configs that make transformers load code or kernels: removed at fetch, refused at load.

Files on a user's own volume, and files that an earlier release staged, are never changed.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hone_api.words.failures import FailureCode
from hone_trainer.errors import SourceError

_CODE_KEYS = {
    "auto_map",
    "attn_implementation",
    "_attn_implementation",
    "_attn_implementation_internal",
    "experts_implementation",
    "_experts_implementation",
    "_experts_implementation_internal",
    "use_kernels",
    "kernel_config",
    "trust_remote_code",
    "custom_pipelines",
    "transformers_weights",
}
"""CVE-2026-4372 and similar."""
_BUILT_IN = (None, False, "eager", "sdpa", "flex_attention", "grouped_mm", "batched_mm")
"""Values of these keys for which transformers never contacts a hub, whatever packages are installed."""
QUANTIZATIONS = ("bitsandbytes", "fp8", "mxfp4")
"""Quantization methods that stored weights may use: those that the image has the libraries for."""


def make_safe(config: Path) -> None:
    """Remove the keys of a JSON config that name code, at any depth; other files stay byte for byte.

    Raises:
        SourceError: UnsafeModel if a config is not JSON; UnsupportedModel for an unknown quantization.
    """
    if not config.name.endswith("config.json"):
        return
    content, cleaned = _read(config)
    if cleaned != content:
        config.write_text(json.dumps(cleaned, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def refuse_code(folder: Path) -> None:
    """Check the configs of the model in `folder` before transformers reads them.

    Raises:
        SourceError: UnsafeModel if a config names code or is not JSON; UnsupportedModel for an unknown quantization.
    """
    for config in sorted(folder.glob("*config.json")):
        content, _ = _read(config)
        if key := next(_code_keys(content), None):
            raise SourceError(
                FailureCode.UNSAFE_MODEL,
                f"{config} has {key}: transformers would load code that the model names. Remove the key from the file; "
                "if the folder is below base-models/ of the store, delete it, and the next run fetches the model again",
            )


def _read(config: Path) -> tuple[Any, Any]:
    """The content unchanged, and without keys that name code."""
    try:
        content = json.loads(config.read_text(encoding="utf-8"), parse_constant=_constant)
        cleaned = _without_code(content)
    except (ValueError, RecursionError):
        raise SourceError(
            FailureCode.UNSAFE_MODEL, f"{config.name} is not JSON (it has NaN, say), or is nested too deep"
        ) from None
    _check_quantization(config.name, content)
    return content, cleaned


def _constant(name: str) -> float:
    """Infinity, which configs of state-space models have; NaN makes every loss NaN."""
    if name == "NaN":
        raise ValueError
    return float(name)


def _check_quantization(name: str, content: Any) -> None:
    options = content.get("quantization_config") if isinstance(content, dict) else None
    kind = options.get("quant_method", "bitsandbytes") if isinstance(options, dict) else options
    if kind is not None and kind not in QUANTIZATIONS:
        supported = ", ".join(QUANTIZATIONS)
        raise SourceError(
            FailureCode.UNSUPPORTED_MODEL, f"{name}: quantization_config of kind {str(kind)[:40]!r}; known: {supported}"
        )


def _without_code(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_code(inner) for key, inner in value.items() if key not in _CODE_KEYS}
    return [_without_code(inner) for inner in value] if isinstance(value, list) else value


def _code_keys(content: Any) -> Iterator[str]:
    """Keys that name code, at any depth."""
    todo = [content]
    while todo:
        value = todo.pop()
        if isinstance(value, dict):
            yield from (key for key in value if key in _CODE_KEYS and not _is_built_in(value[key]))
            todo += value.values()
        elif isinstance(value, list):
            todo += value


def _is_built_in(value: Any) -> bool:
    """Whether the value of an implementation key is built in: a name, or a name for each part of the model."""
    return all(map(_is_built_in, value.values())) if isinstance(value, dict) else value in _BUILT_IN
