"""Arguments of the commands, read before torch is loaded: `--help` and a wrong flag are answered at once."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

TOKENS = 256
"""Maximum tokens of an answer by default."""


def ask(arguments: Sequence[str]) -> argparse.Namespace:
    """Options of `python -m hone_trainer ask`."""
    parser = _parser("ask", "one answer of an exported model, asked as its training rows ask")
    parser.add_argument("artifact", type=Path, help="folder of an exported adapter, merged or full model")
    parser.add_argument("question", help="what a user would write; of DAPT the beginning of a text")
    parser.add_argument("--base", type=Path, help="folder of the base model; default: where the run had it")
    parser.add_argument("--max-new-tokens", type=int, default=TOKENS, metavar="N", help=f"default {TOKENS}")
    return parser.parse_args(arguments)


def chat(arguments: Sequence[str]) -> argparse.Namespace:
    """Options of `python -m hone_trainer chat`."""
    parser = _parser("chat", "talk to an exported model and compare its answers with those of its base")
    parser.add_argument("artifact", type=Path, help="folder of an exported adapter, merged or full model")
    parser.add_argument("--base", type=Path, help="folder of the base model; default: where the run had it")
    parser.add_argument("--max-new-tokens", type=int, default=TOKENS, metavar="N", help=f"default {TOKENS}")
    parser.add_argument(
        "--json", action="store_true", help="one JSON object a line, for programs: {messages} in, {base, tuned} out"
    )
    return parser.parse_args(arguments)


def evaluate(arguments: Sequence[str]) -> argparse.Namespace:
    """Options of `python -m hone_trainer evaluate`."""
    parser = _parser("evaluate", "the numbers of a finished run again, from its artifact alone")
    parser.add_argument("artifact", type=Path, help="folder of an exported adapter, merged or full model")
    parser.add_argument("--data", type=Path, required=True, help="JSON Lines file of held-out rows, as materialized")
    parser.add_argument("--base", type=Path, help="folder of the base model; default: where the run had it")
    parser.add_argument("--against", type=Path, help="another exported model to compare with, instead of the base")
    rewards = "reward model or reward function that GRPO or PPO used; default: where the run had it; may be repeated"
    parser.add_argument("--reward", type=_named_path, action="append", default=[], metavar="NAME=PATH", help=rewards)
    return parser.parse_args(arguments)


def export(arguments: Sequence[str]) -> argparse.Namespace:
    """Options of `python -m hone_trainer export`."""
    parser = _parser("export", "a checkpoint as a model, during or long after its run")
    parser.add_argument("checkpoint", type=Path, help="folder of a checkpoint, e.g. work/checkpoints/step-000400")
    parser.add_argument("--output", type=Path, required=True, help="folder that the artifacts are written below")
    parser.add_argument("--plan", type=Path, help="the run's plan; default: plan.json of its work folder")
    parser.add_argument("--merge", action="store_true", help="also base and adapter merged; default: as the plan says")
    parser.add_argument("--gguf", action="store_true", help="also in GGUF for llama.cpp; an adapter needs --merge")
    parser.add_argument("--weight", type=float, default=1.0, help="between base weights (0) and tuned weights (1)")
    return parser.parse_args(arguments)


def follow(arguments: Sequence[str]) -> argparse.Namespace:
    """Of `python -m hone_trainer follow`."""
    parser = _parser(
        "follow", "load into the vLLM of this pod the adapters that aliases point to; see `hone serve --follow`"
    )
    parser.add_argument("--alias", action="append", required=True, metavar="NAME=MODEL@ALIAS", help="may be repeated")
    parser.add_argument("--base", required=True, metavar="URI", help="base that vLLM serves, e.g. pvc://claim/folder")
    parser.add_argument("--claim", required=True, help="volume claim of the store")
    parser.add_argument("--served-base", default="/base", metavar="NAME", help="--model of vLLM; default /base")
    parser.add_argument("--models", type=Path, default=Path("/models"), help="models/ of the store; default /models")
    parser.add_argument("--aliases", type=Path, default=Path("/aliases"), help="the ConfigMap; default /aliases")
    parser.add_argument("--adapters", type=Path, default=Path("/adapters"), help="what vLLM reads; default /adapters")
    parser.add_argument("--vllm", default="http://127.0.0.1:8000", metavar="URL", help="default http://127.0.0.1:8000")
    parser.add_argument("--port", type=int, default=8001, help="of /healthz, /readyz and /status; default 8001")
    return parser.parse_args(arguments)


def _named_path(text: str) -> tuple[str, Path]:
    """Raises:
    argparse.ArgumentTypeError: for anything but NAME=PATH.
    """
    name, _, path = text.partition("=")
    if not name or not path:
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=PATH")
    return name, Path(path)


def _parser(command: str, description: str) -> argparse.ArgumentParser:
    return argparse.ArgumentParser(
        prog=f"python -m hone_trainer {command}", description=f"`python -m hone_trainer {command}`: {description}."
    )
