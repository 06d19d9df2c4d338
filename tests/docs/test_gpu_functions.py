"""docs/concepts/speed.md lists each function of the trainer that does something else on a GPU."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs/concepts/speed.md"
TRAINER = "trainer/hone_trainer"


def on_cards(source: str) -> Iterator[str]:
    """Functions that ask for CUDA, or whether there is a card."""
    for function in ast.walk(ast.parse(source)):
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef) and any(map(_asks, ast.walk(function))):
            yield function.name


def _asks(node: ast.AST) -> bool:
    match node:
        case ast.Attribute(attr="cuda" | "is_cuda") | ast.Name(id="cuda"):
            return True
        case ast.Attribute(attr="cpu", value=ast.Name(id=owner) | ast.Attribute(attr=owner)):
            return owner == "settings"
        case ast.Constant(value="cuda" | "nccl" | "flex_attention"):
            return True
    return False


@pytest.mark.pure
def test_each_function_that_asks_for_cuda_is_listed() -> None:
    section = PAGE.read_text().split("## What only a GPU runs", 1)[1].split("\n## ", 1)[0]
    rows = re.findall(rf"^\| `({TRAINER}/\S+)` \| (.*?) \|", section, re.MULTILINE)
    listed = {(file, name) for file, functions in rows for name in re.findall(r"`(\w+)`", functions)}
    asked = {
        (str(file.relative_to(ROOT)), name)
        for file in sorted((ROOT / TRAINER).rglob("*.py"))
        for name in on_cards(file.read_text())
    }
    assert len(asked) > 20
    assert asked - listed == set()
    assert {file for file, _ in rows if not (ROOT / file).exists()} == set()


@pytest.mark.pure
@pytest.mark.parametrize(
    "body",
    [
        "torch.cuda.empty_cache()",
        "model.cuda()",
        "device.type == 'cuda'",
        "rows.is_cuda",
        "Gauge(cuda)",
        "not run.settings.cpu",
    ],
)
def test_a_function_for_cards_is_seen(body: str) -> None:
    assert list(on_cards(f"def made(model):\n    return {body}\ndef other(): ...")) == ["made"]
