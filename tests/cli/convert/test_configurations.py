"""Example configurations of other tools: all are read, and every key is accounted for."""

from __future__ import annotations

import dataclasses
import json
import lzma
import re
from collections import Counter
from collections.abc import Iterator
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import pytest
import yaml

from hone_api.dataset.dataset import DatasetSpec
from hone_api.kinds.finetunejob import FineTuneJobSpec
from hone_cli.convert import command, reading, tables
from hone_cli.convert.engine import Conversion, Converted, ConvertRequest, Fate, NoJobError, flat

ROOT = Path(__file__).parents[3]
CORPUS = ROOT / "tests/corpus/configurations"
TOOLS = sorted(
    file.name.partition(".")[0] for file in CORPUS.glob("*.xz") if file.name.partition(".")[0] in tables.tables()
)
SAMPLE = 8
"""One configuration of so many runs in `make test`."""


ELSEWHERE = {"layer", "mlp_up", "mlp_down"}
"""Layers of models whose code is in their own repositories, which Hone does not run."""


class Outcome(NamedTuple):
    """What came of one configuration."""

    converted: Converted | None
    reason: str


def configurations(tool: str) -> Iterator[tuple[str, str]]:
    """Path and text of each."""
    for line in lzma.decompress((CORPUS / f"{tool}.jsonl.xz").read_bytes()).splitlines():
        row = json.loads(line)
        yield row["path"], row["text"]


def convert(tool: str, file: Path) -> Outcome:
    document = reading.read(file)
    detected = tables.detected(key for key, _ in flat(document)) or tool
    table = tables.tables()[detected if detected.startswith(tool) else tool]
    try:
        try:
            return Outcome(Conversion(table, ConvertRequest("example")).convert(document), "")
        except NoJobError as error:
            if "--model" not in str(error):
                raise
            return Outcome(Conversion(table, ConvertRequest("example", "owner/name")).convert(document), "")
    except NoJobError as error:
        return Outcome(None, str(error))


def check(converted: Converted) -> None:
    """The objects are what the API takes, also as the YAML that is printed."""
    printed = list(yaml.safe_load_all(command.manifest(converted, "example")))
    assert printed == converted.objects
    for body in printed:
        (FineTuneJobSpec if body["kind"] == "FineTuneJob" else DatasetSpec).model_validate(body["spec"])
    targets = printed[-1]["spec"].get("adapter", {}).get("targets") or ()
    assert {target.rpartition(".")[2] for target in targets} <= layers() | ELSEWHERE


@cache
def layers() -> set[str]:
    """Names of attributes in the model classes of transformers."""
    (root,) = find_spec("transformers").submodule_search_locations
    files = Path(root).glob("models/*/modeling_*.py")
    return {name for file in files for name in re.findall(r"self\.(\w+) = ", file.read_text())}


@pytest.mark.pure
@pytest.mark.parametrize("file", sorted(CORPUS.glob("*.keys")), ids=lambda file: file.stem)
def test_every_key_of_the_schema_of_a_tool_is_known(file: Path) -> None:
    keys = file.read_text().split()
    assert len(keys) > 100
    assert [key for key in keys if tables.tables()[file.stem].row(key) is None] == []


@pytest.mark.trainer
def test_every_field_of_the_classes_of_trl_is_known() -> None:
    import trl
    from trl.scripts.utils import DatasetMixtureConfig

    classes = [getattr(trl, f"{name}Config") for name in ("SFT", "DPO", "KTO", "Reward", "GRPO", "RLOO", "Model")]
    names = {
        field.name
        for each in (*classes, trl.ScriptArguments, DatasetMixtureConfig)
        for field in dataclasses.fields(each)
    }
    assert len(names) > 200
    assert [name for name in sorted(names - {"datasets"}) if tables.tables()["trl"].row(name) is None] == []


@pytest.mark.pure
@pytest.mark.parametrize("tool", TOOLS)
def test_a_sample(tool: str, tmp_path: Path) -> None:
    for path, text in list(configurations(tool))[::SAMPLE]:
        file = tmp_path / "config.yaml"
        file.write_text(text)
        outcome = convert(tool, file)
        assert outcome.reason or outcome.converted
        if outcome.converted:
            check(outcome.converted)
            assert Fate.UNKNOWN not in [key.fate for key in outcome.converted.keys.values()], path


@pytest.mark.pure
@pytest.mark.long
@pytest.mark.outside
@pytest.mark.parametrize("tool", TOOLS)
def test_all(tool: str, tmp_path: Path) -> None:
    files, fates, unknown, refused = 0, Counter[str](), Counter[str](), Counter[str]()
    for _, text in configurations(tool):
        files += 1
        file = tmp_path / "config.yaml"
        file.write_text(text)
        outcome = convert(tool, file)
        if outcome.converted is None:
            refused[outcome.reason] += 1
            continue
        check(outcome.converted)
        fates.update(key.fate for key in outcome.converted.keys.values())
        unknown.update(key for key, (fate, _) in outcome.converted.keys.items() if fate == Fate.UNKNOWN)
    print(f"{tool}: {files} files, {dict(fates)}, refused {refused.most_common()}")
    assert unknown == Counter()
    total = fates.total()
    shares = [f"{fates[fate] / total:.0%}".replace("%", " %") for fate in (Fate.MAPPED, Fate.DROPPED, Fate.DIFFERS)]
    row = (
        f"| {files} | {files - refused.total()} become manifests: {shares[0]} of their {total:,} keys are in them, "
        f"{shares[1]} are not needed, {shares[2]} differ | {refused.total()} files are refused"
    )
    (line,) = (
        e for e in (ROOT / "docs/outside.md").read_text().splitlines() if f"[{tables.tables()[tool].title}](" in e
    )
    assert row in line, row
