"""Which of a version's numbers gates read, after it was measured again."""

from __future__ import annotations

import random
from typing import Any

import pytest

from hone_api.kinds.model import Promotion
from hone_api.verdicts.gates import InUse, measured_numbers, newest, verdict

pytestmark = pytest.mark.pure
BETTER, WORSE = ("-0.3", "-0.1"), ("0.1", "0.3")


def loss(tuned: str = "1", against: tuple[str, str] | None = None, dataset: str = "faq/validation") -> dict[str, Any]:
    ends = {"against": "2", "againstLow": against[0], "againstHigh": against[1]} if against else {}
    return {"name": "loss", "dataset": dataset, "base": "3", "tuned": tuned, **ends}


def version(
    *numbers: dict[str, Any], against: str | None = None, again: Any = (), number: int = 3, job: str | None = None
) -> dict[str, Any]:
    """Args: again: (day, against of the entry, ModelVersion that it meant, number) of each later measurement."""
    entries, statuses = [], []
    for day, asked, meant, value in again:
        dataset, _, split = value["dataset"].partition("/")
        entries.append({"dataset": dataset, "split": split, **({"against": asked} if asked else {})})
        at = {"evaluatedAt": f"2026-03-{day:02d}T00:00:00Z"}
        shown = {} if meant is None else {"against": meant}
        statuses.append({"dataset": dataset, "split": split, "numbers": [value], **at, **shown})
    evaluation = {"numbers": list(numbers), **({} if against is None else {"against": against})}
    spec = {"modelName": "bot", "version": number, "evaluation": evaluation, "evaluations": entries}
    spec["lineage"] = {"hyperParameters": {"evaluation": {"against": job}}}
    return {"spec": spec, "status": {"evaluations": statuses}}


def result(body: dict[str, Any], now: str = "bot-v2", ever: tuple[int, ...] = (1, 2), **gate: str) -> str:
    gates = [{"metric": "loss", **gate}]
    promotion = Promotion.model_validate({"aliases": ["champion"], "gates": gates})
    return str(verdict(promotion, body, InUse(frozenset({now} if now else ()), frozenset(ever))).result)


def test_a_gate_reads_the_newest_number_of_each_metric_and_dataset() -> None:
    body = version(
        loss("1"), loss("9", dataset="old/validation"), again=[(2, None, None, loss("5")), (1, None, None, loss("4"))]
    )
    assert [(m.number.tuned, m.at[:10]) for m in newest(measured_numbers(body)) if m.number] == [
        ("5", "2026-03-02"),
        ("9", ""),
    ]
    assert result(body, dataset="faq/validation", atMost="4.5") == "Failed"
    assert result(body, dataset="faq/validation", atLeast="5", atMost="5") == "Passed"
    assert result(body, dataset="old/validation", atLeast="9") == "Passed"
    assert result(body, atMost="6") == "Failed", "without a dataset, all must pass"


@pytest.mark.parametrize(("before", "rows", "expected"), [(512, 1, "Failed"), (512, 100, "Passed"), (40, 40, "Passed")])
def test_a_number_of_few_rows_replaces_none_of_many(before: int, rows: int, expected: str) -> None:
    """Who may add an entry chooses its rows: one that suits must not turn a gate that failed."""
    body = version(loss("9") | {"rows": before}, again=[(1, None, None, loss("1") | {"rows": rows})])
    assert result(body, atMost="5") == expected


def test_a_number_without_what_the_gate_is_about_replaces_none() -> None:
    alone = {"name": "loss", "dataset": "faq/validation", "tuned": "1"}
    body = version(loss("2"), again=[(1, None, None, alone)])
    assert result(body, value="Change", atMost="-1") == "Passed", "2 - 3: the later one has no base"
    assert result(body, atMost="1") == "Passed", "the later one"


@pytest.mark.parametrize(
    ("ends", "expected"),
    [(("-0.02", "0.1"), "Passed"), (("-0.3", "-0.1"), "Failed"), (("-0.3", "0.1"), "Inconclusive")],
)
@pytest.mark.parametrize("against", [None, "", "bot-v1"])
def test_recorded_answers_are_compared_with_whatever_is_in_use(
    ends: tuple[str, str], expected: str, against: str | None
) -> None:
    number = loss(tuned="2", against=ends) | {"name": "parity_mine"}
    body = version(number, against=against)
    assert result(body, metric="parity_mine", value="Against", atLeast="-0.05") == expected


@pytest.mark.parametrize(
    ("name", "rows", "expected"),
    [
        ("parity_mine", 59, "Inconclusive"),
        ("parity_mine", 61, "Passed"),
        ("parity_mine", None, "Inconclusive"),
        ("loss", 1, "Inconclusive"),
        ("loss", 2, "Passed"),
    ],
)
def test_equal_rows_prove_only_as_much_as_there_are(name: str, rows: int | None, expected: str) -> None:
    """All rows tied: an interval without a width, which 0.05 = 3 / 60 rows make a proof of."""
    number = loss(tuned="2", against=("0", "0")) | {"name": name, "rows": rows}
    body = version(number, against="bot-v2")
    assert result(body, metric=name, value="Against", atLeast="-0.05", atMost="9") == expected


CHAMPION = "models://bot@champion"


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (version(loss(against=BETTER), against="bot-v1"), "Inconclusive"),
        (
            version(loss(against=BETTER), against="bot-v1", again=[(1, CHAMPION, "bot-v2", loss(against=BETTER))]),
            "Passed",
        ),
        (
            version(loss(against=BETTER), against="bot-v1", again=[(1, CHAMPION, "bot-v2", loss(against=WORSE))]),
            "Failed",
        ),
        (
            version(loss(against=BETTER), against="bot-v1", again=[(1, CHAMPION, "bot-v1", loss(against=BETTER))]),
            "Inconclusive",
        ),
        (version(loss(), again=[(1, CHAMPION, "bot-v2", loss(against=BETTER))]), "Passed"),
        (version(loss(), again=[(1, CHAMPION, "", loss())]), "Inconclusive"),
        (version(loss(against=BETTER), against="bot-v2", again=[(1, None, None, loss())]), "Passed"),
        (
            version(loss(against=WORSE), against="bot-v2", again=[(1, "bot-v9", "bot-v9", loss(against=BETTER))]),
            "Failed",
        ),
        (
            version(
                loss(against=WORSE), against="bot-v2", again=[(1, "models://weak@x", "weak-v1", loss(against=BETTER))]
            ),
            "Failed",
        ),
        (
            version(loss(against=WORSE), against="bot-v2", again=[(1, "bot-v1", "bot-v1", loss(against=BETTER))]),
            "Failed",
        ),
        (
            version(
                loss(against=WORSE),
                against="rival-v1",
                job="models://rival@x",
                again=[(1, "models://rival@x", "rival-v2", loss(against=BETTER))],
            ),
            "Passed",
        ),
    ],
    ids=[
        "compared with an older one",
        "compared again, better",
        "compared again, worse",
        "compared again before the alias moved",
        "an import",
        "with none, and there is one now",
        "measured again alone",
        "a newer one that somebody chose",
        "an easier rival that somebody chose",
        "an older one that somebody chose",
        "a rival that the job chose",
    ],
)
def test_a_comparison_counts_if_it_is_with_the_version_in_use(body: dict[str, Any], expected: str) -> None:
    assert result(body, value="Against", atMost="0") == expected


def test_without_a_version_in_use_there_is_nothing_to_be_better_than() -> None:
    body = version(loss(), again=[(1, CHAMPION, "", loss())])
    assert result(body, now="", ever=(), value="Against", atMost="0") == "Passed"
    assert result(version(loss()), now="", ever=(), value="Against", atMost="0") == "Inconclusive"


def test_a_comparison_with_what_came_later_takes_no_version_out_of_a_rollback() -> None:
    body = version(loss(against=BETTER), against="bot-v1", again=[(1, "bot-v4", "bot-v4", loss(against=WORSE))])
    assert result(body, now="bot-v4", ever=(1, 3, 4), value="Against", atMost="0") == "Passed"


@pytest.mark.parametrize("seed", range(50))
def test_without_later_measurements_the_numbers_of_the_record_decide(seed: int) -> None:
    """And of any number of them, only the newest that counts does."""
    rng = random.Random(seed)
    draws = [loss(str(rng.randrange(5)), rng.choice([None, BETTER, WORSE])) for _ in range(rng.randrange(1, 6))]
    days = rng.sample(range(1, 28), len(draws))
    again = [
        (day, CHAMPION, "bot-v2" if "against" in each else None, each) for day, each in zip(days, draws, strict=True)
    ]
    body, limit = version(loss("2", WORSE), against="bot-v2", again=again), str(rng.randrange(5))
    _, last = max(zip(days, draws, strict=True), key=lambda pair: pair[0])
    alone = version(last, against="bot-v2")
    for gate in ({"atMost": limit}, {"value": "Change", "atLeast": "-1"}):
        assert result(body, **gate) == result(alone, **gate)
    compared = [pair for pair in zip(days, draws, strict=True) if "against" in pair[1]]
    expected = max(compared, key=lambda pair: pair[0])[1] if compared else loss("2", WORSE)
    against = {"value": "Against", "atMost": "0"}
    assert result(body, **against) == result(version(expected, against="bot-v2"), **against)
