"""A hub of small data sets, and tasks that were staged from it once."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.servers.harness_hub import ARC, FURTHER, GSM, SPLITS, TASKS, TOKEN, Stage, card, hard, pages, write

from hone_api.contract.report import TasksResult
from hone_dev import hub


@pytest.fixture(scope="session")
def repositories(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a hub with data sets in the layout of the real ones."""
    root = tmp_path_factory.mktemp("hub")
    arc = root / "datasets" / "allenai" / "ai2_arc" / "main"
    for (config, split), rows in ARC.items():
        write(arc / config / f"{split}-00000-of-00001.parquet", rows)
    described = {c: {s: f"{c}/{s}-*" for s in SPLITS} for c in ("ARC-Challenge", "ARC-Easy")}
    (arc / "README.md").write_text(card(**described))
    gsm = root / "datasets" / "openai" / "gsm8k" / "main"
    for split, rows in GSM.items():
        write(gsm / "main" / f"{split}-00000-of-00001.parquet", rows)
    (gsm / "README.md").write_text(card(main={s: f"main/{s}-*" for s in GSM}))
    wiki = root / "datasets" / "EleutherAI" / "wikitext_document_level" / "main"
    for number, split in enumerate(SPLITS):
        write(wiki / "wikitext-2-raw-v1" / f"{split}-00000-of-00001.parquet", pages(number, 6))
    config = "wikitext-2-raw-v1"
    (wiki / "README.md").write_text(card(**{config: {s: f"{config}/{s}-*" for s in SPLITS}}))
    gpqa = root / "datasets" / "Idavidrein" / "gpqa" / "main"
    gpqa.mkdir(parents=True)
    import pandas

    pandas.DataFrame(hard(3, 12)).to_csv(gpqa / "gpqa_main.csv", index=False)
    (gpqa / "README.md").write_text(card(gpqa_main={"train": "gpqa_main.csv"}))
    (gpqa.parent / "hub.json").write_text(json.dumps({"gated": True, "tokens": [TOKEN]}))
    return root


@pytest.fixture(scope="session")
def endpoint(repositories: Path) -> Iterator[str]:
    with hub.serve(repositories) as url:
        yield url


@pytest.fixture(scope="session")
def staging_job(tmp_path_factory: pytest.TempPathFactory, endpoint: str) -> tuple[Stage, TasksResult]:
    """All of these, staged once."""
    stage = Stage(tmp_path_factory.mktemp("staged"), endpoint)
    return stage, stage.staged(*TASKS, *FURTHER, secret={"HF_TOKEN": TOKEN})


@pytest.fixture(scope="session")
def staged(staging_job: tuple[Stage, TasksResult]) -> dict[str, Any]:
    """`harnessTasks` of a plan."""
    stage, result = staging_job
    return stage.inputs(result)
