"""From seed rows through a real model and a person's decisions to a materialized Dataset."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hone_api.dataset.review import Decision
from hone_api.plan import MaterializePlan
from hone_dev.models import models, modelserver
from hone_trainer.datasets import materialize
from hone_trainer.errors import SourceError

pytestmark = pytest.mark.trainer

SEEDS = [
    ("What is the capital of France?", "Paris."),
    ("Who wrote the play Hamlet?", "William Shakespeare."),
    ("What colour is the sky on a clear day?", "Blue."),
    ("Which animal gives us wool?", "The sheep."),
]
MODEL = "SmolLM2-135M-Instruct"


class Remembers(modelserver.Model):
    """Computes the answer to a request once, however many tests send it: that takes seconds."""

    def __init__(self) -> None:
        super().__init__(str(models.smollm2()), MODEL)
        self._answers: dict[str, Any] = {}

    def answer(self, messages: list[dict[str, str]], *drawn: Any) -> dict[str, Any]:
        request = json.dumps([messages, *drawn])
        if request not in self._answers:
            self._answers[request] = super().answer(messages, *drawn)
        return self._answers[request]


@pytest.fixture(scope="session")
def smollm2() -> Iterator[str]:
    """The base URL of an OpenAI-compatible server with SmolLM2, which wants the key 'sk-test-key'."""
    with modelserver.serve(Remembers(), "sk-test-key") as url:
        yield url


@pytest.fixture
def plan(tmp_path: Path, smollm2: str) -> Any:
    """Makes a plan of paraphrases of the seeds; keyword arguments go into synthesis."""
    (tmp_path / "seeds.jsonl").write_text("".join(json.dumps({"prompt": p, "completion": c}) + "\n" for p, c in SEEDS))
    secret = tmp_path / "secret"
    secret.mkdir()
    (secret / "API_KEY").write_text("sk-test-key")

    def make(**synthesis: Any) -> MaterializePlan:
        body = {"template": "Paraphrase", "endpoint": smollm2, "rows": 3, "maxTokens": 48, "secretName": "key"}
        return MaterializePlan.model_validate(
            {
                "name": "answers",
                "source": {"uri": "pvc://data/seeds.jsonl"},
                "sourcePath": str(tmp_path / "seeds.jsonl"),
                "synthesis": body | synthesis,
                "synthesisSecretPath": str(secret),
                "splits": {"validation": "0%"},
                "store": str(tmp_path / "store"),
                "limits": {"allowPrivateAddresses": True},
            }
        )

    return make


def batch_of(plan: MaterializePlan) -> Path:
    """The one batch of the store."""
    (folder,) = (Path(plan.store) / "synthesis" / plan.name).iterdir()
    return folder


def lines(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def decide(folder: Path, id: str, verdict: str, row: dict[str, Any] | None = None, reviewer: str = "ann") -> None:
    """What `hone dataset review` writes."""
    decision = Decision(id=id, verdict=verdict, row=row, reviewer=reviewer, time="2026-01-01T00:00:00Z")
    with open(folder / "decisions" / f"{reviewer}.jsonl", "a") as file:
        file.write(decision.model_dump_json(by_alias=True) + "\n")


def test_rows_wait_until_a_person_accepted_them(plan, terminal):
    first = materialize.run(plan())
    assert first.digest is None
    assert (first.synthetic.pending, first.synthetic.accepted, first.synthetic.complete) == (3, 0, False)
    assert not list((Path(plan().store) / "datasets").iterdir())

    screen = terminal("dataset", "review", "answers", "--path", plan().store, "--reviewer", "ann")
    screen.until("3 wait")
    screen.press("r")
    screen.until("2 wait")
    screen.press("a")
    screen.until("1 wait")
    screen.press("a")
    screen.until("Nothing is left to decide on")
    screen.press("q")
    assert screen.end() == 0

    result = materialize.run(plan())
    assert result.digest is not None
    assert (result.synthetic.accepted, result.synthetic.rejected, result.synthetic.complete) == (2, 1, True)
    assert result.synthetic.generated == first.synthetic.generated, "nothing is asked for again"
    folder = Path(plan().store) / str(result.path)
    rows, records = lines(folder / "train.jsonl"), lines(folder / "synthetic.jsonl")
    assert [record["row"] for record in records] == rows
    answers = dict.fromkeys(completion for _, completion in SEEDS)
    for record in records:
        assert record["synthetic"] is True
        assert record["row"]["completion"] in answers
        assert record["decision"]["reviewer"] == "ann"
        assert record["provenance"]["model"] == MODEL
        assert record["provenance"]["endpoint"] == "127.0.0.1"
        assert len(record["provenance"]["seeds"]) == 1


def test_edited_rows_are_trained_on_as_edited(plan):
    materialize.run(plan(rows=2))
    folder = batch_of(plan())
    first, second = lines(folder / "candidates.jsonl")
    decide(folder, first["id"], "Edit", {**first["row"], "prompt": "In other words?"})
    decide(folder, second["id"], "Reject")
    result = materialize.run(plan(rows=2))
    assert result.synthetic.edited == 1
    (row,) = lines(Path(plan().store) / str(result.path) / "train.jsonl")
    assert row == {"prompt": "In other words?", "completion": first["row"]["completion"]}


def test_a_killed_job_goes_on_where_it_was(plan):
    """Half a line is what a killed process leaves."""
    materialize.run(plan(rows=3))
    file = batch_of(plan()) / "candidates.jsonl"
    whole = lines(file)
    text = file.read_text()
    file.write_text(text[: len(text) - 40])
    again = materialize.run(plan(rows=3))
    assert again.synthetic.pending == 3
    good = [json.loads(line) for line in file.read_text().splitlines() if line.endswith("}")]
    assert [c["id"] for c in good if c["index"] != whole[2]["index"]] == [c["id"] for c in whole[:2]]
    assert [(c["id"], c["row"]) for c in good] == [(c["id"], c["row"]) for c in whole], "request i gives row i"


def test_without_review_only_when_the_spec_says_so(plan):
    result = materialize.run(plan(rows=2, review={"required": False}))
    assert result.rows == 2
    assert result.synthetic.complete


def test_a_wrong_key_is_reported(plan, tmp_path):
    (tmp_path / "secret" / "API_KEY").write_text("sk-other-key")
    with pytest.raises(SourceError) as caught:
        materialize.run(plan())
    assert caught.value.code == "EndpointRefused"
    assert "401" in caught.value.message
    assert "sk-other-key" not in caught.value.message


def test_rejecting_everything_is_no_dataset(plan):
    materialize.run(plan(rows=1))
    (candidate,) = lines(batch_of(plan()) / "candidates.jsonl")
    decide(batch_of(plan()), candidate["id"], "Reject")
    result = materialize.run(plan(rows=1))
    assert result.digest is None
    assert (result.synthetic.rejected, result.synthetic.pending, result.synthetic.complete) == (1, 0, False)
