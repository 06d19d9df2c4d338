"""The numbers in the guides to the methods are those of the API and of the estimate."""

import re
from pathlib import Path

import pytest
from support.models.shapes import LLAMA_8B

from hone_api.dataset.dataset import Format
from hone_api.estimate.memory import Setup, estimate
from hone_api.methods import METHODS, DpoMethod, KtoMethod, Method, OrpoMethod, PpoMethod

pytestmark = pytest.mark.pure
PAGES = Path(__file__).parents[2] / "docs" / "guides" / "methods"
ADAPTERS = {"QLoRA": "QLoRA", "LoRA": "LoRA", "Full": "None"}
BLOCKS = {
    "dpo.beta": DpoMethod().beta,
    "dpo.loss": DpoMethod().loss,
    "kto.beta": KtoMethod().beta,
    "orpo.weight": OrpoMethod().weight,
    "ppo.kl": PpoMethod(reward_model_version="v").kl,
    "ppo.maxKl": PpoMethod(reward_model_version="v").max_kl,
    "ppo.iterations": PpoMethod(reward_model_version="v").iterations,
    "ppo.missingEndPenalty": PpoMethod(reward_model_version="v").missing_end_penalty,
}


def tables(page: str) -> list[list[str]]:
    """Cells of every row of every table of a page."""
    lines = (PAGES / page).read_text().splitlines()
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")]


def gib(method: str, adapter: str) -> int:
    setup = Setup(
        shape=LLAMA_8B,
        method=method,
        adapter=adapter,
        rank=16,
        targets=None,
        dropout=False,
        bf16=True,
        gpu=True,
        max_length=1024,
        micro_batch=1,
        checkpointing=True,
        zero_stage=0,
        offload="None",
        ranks=1,
        reference=method == Method.PPO and adapter == "None",
    )
    return round(estimate(setup).total / 2**30)


@pytest.mark.parametrize("method", list(Method))
def test_the_memory_of_each_method_is_the_estimate(method):
    rows = tables("index.md")
    header = next(row for row in rows if "QLoRA" in row)
    (row,) = [row for row in rows if row[0] == method and len(row) == len(header)]
    shown = {name: int(row[header.index(name)]) for name in ADAPTERS}
    assert shown == {name: gib(method, adapter) for name, adapter in ADAPTERS.items()}


@pytest.mark.parametrize("method", [method for method in Method if (PAGES / f"{method.lower()}.md").exists()])
def test_the_defaults_are_those_of_the_api(method):
    page = f"{method.lower()}.md"
    rows = {row[0].strip("`"): row[1] for row in tables(page)}
    rates = METHODS[method].rates
    shown = re.match(r"(\S+) adapters, (\S+) full", rows["training.learningRate"])
    assert shown, f"{page} does not tell the learning rates"
    assert (float(shown[1]), float(shown[2])) == (rates.adapter, rates.full)
    for field, default in BLOCKS.items():
        if field in rows:
            assert rows[field].split(" (")[0] == str(default), field


def test_the_page_on_formats_lists_the_methods_that_take_each() -> None:
    rows = (PAGES.parent / "data" / "formats.md").read_text().partition("For method")[2].partition("\n\n")[0]
    listed = {cells[1].strip(" `"): cells[3].strip().split(", ") for cells in map(cells_of, rows.splitlines()[2:])}
    taken = {format_: [m for m, info in METHODS.items() if format_ in info.formats] for format_ in Format}
    del taken[Format.AUTO]
    assert listed == taken


def cells_of(row: str) -> list[str]:
    return row.split("|")
