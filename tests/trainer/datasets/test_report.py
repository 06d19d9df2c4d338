"""The report: a page that loads nothing and shows rows as text, the same numbers as JSON; also of rows not fit."""

from __future__ import annotations

import json
import re
import sysconfig
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from support.rows import counting

from hone_api.plan import MaterializePlan
from hone_trainer.datasets import materialize, publishing
from hone_trainer.datasets.texts.language import language_of, languages_of
from hone_trainer.errors import DataError
from hone_trainer.workers.parallel import Workers

pytestmark = pytest.mark.trainer

EVIL = "<script>alert(1)</script><img src=x onerror=alert(1)></pre></td>\"'>{{ 7 * 7 }}\ud800"
GOOD = [{"prompt": f"What is the number {i}?", "completion": f"It is {i}, and that is all."} for i in range(60)]


@pytest.fixture
def plan(tmp_path: Path) -> Callable[..., MaterializePlan]:
    def make(rows: list[Any], **fields: Any) -> MaterializePlan:
        (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        return MaterializePlan.model_validate(
            {
                "name": "rows",
                "store": str(tmp_path / "store"),
                "source": {"uri": "pvc://claim/rows.jsonl"},
                "sourcePath": str(tmp_path / "rows.jsonl"),
                **fields,
            }
        )

    return make


class Page(HTMLParser):
    """Tags with their attributes, and the text outside style."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.open: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "rect", "line", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag in self.open:
            while self.open.pop() != tag:
                raise AssertionError(f"{tag} closes another tag")

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.text += data


def read(asked: MaterializePlan, result: Any) -> tuple[Page, dict[str, Any]]:
    path = Path(asked.store) / result.report
    return Page(path.read_text(encoding="utf-8")), json.loads(path.with_name("report.json").read_text(encoding="utf-8"))


def test_a_report_of_rows_that_are_fit(plan: Any) -> None:
    rows = [*GOOD, {"prompt": EVIL, "completion": EVIL.replace("\ud800", "")}, {"prompt": "a"}]
    asked = plan(rows)
    result = materialize.run(asked)
    assert result.report == f"{result.path}/report.html"
    page, data = read(asked, result)
    for words in (
        "Fit for training.",
        "60 of 62 rows are good.",
        *result.advice,
        "MissingColumn",
        "Row 62, rows.jsonl:62",
    ):
        assert words in page.text, words
    assert data["result"]["rows"] == result.rows == 60
    assert sum(bar["rows"] for bar in data["lengths"]) == 60
    assert [example["row"] for example in data["rejectedExamples"]["NotUTF8"]] == [61]
    assert data["result"]["advice"] == result.advice
    assert (
        data["profile"]["examples"][0] == '{"prompt":"What is the number 0?","completion":"It is 0, and that is all."}'
    )


def test_the_page_loads_nothing_and_runs_nothing(plan: Any) -> None:
    rows = [*GOOD, *[{"prompt": EVIL, "completion": EVIL}] * 2, {EVIL[:-1]: EVIL, "prompt": 1}]
    page, _ = read(asked := plan(rows, checks={"maxRejected": "50%"}), materialize.run(asked))
    assert {tag for tag, _ in page.tags} <= {
        *(
            "html",
            "head",
            "meta",
            "title",
            "style",
            "body",
            "main",
            "h1",
            "h2",
            "h3",
            "p",
            "div",
            "b",
            "span",
            "ul",
            "li",
        ),
        *("figure", "figcaption", "svg", "rect", "text", "line", "table", "tr", "th", "td", "pre", "code", "br"),
        *("dl", "dt", "dd"),
    }
    for _, attributes in page.tags:
        assert not any(name.startswith("on") or name in ("src", "href", "style") for name in attributes)
    assert not page.open, "every tag is closed"
    assert "<script>alert(1)</script>" in page.text, "as text"
    assert "{{ 7 * 7 }}" in page.text
    assert any(
        attributes.get("content", "") == "default-src 'none'; style-src 'unsafe-inline'" for _, attributes in page.tags
    )


def test_bars_are_as_long_as_their_numbers(plan: Any) -> None:
    asked = plan(GOOD, splits={"validation": "20%"})
    result = materialize.run(asked)
    page = (Path(asked.store) / str(result.report)).read_text()
    splits = page.split("<h2>Splits</h2>")[1].split("</figure>")[0]
    widths = [float(width) for width in re.findall(r'<rect[^>]* width="([\d.]+)"', splits)]
    rows = [split.rows for split in result.splits]
    assert widths == [round(340 * count / max(rows), 1) for count in rows]


def test_rows_that_are_not_fit_also_have_a_report(plan: Any) -> None:
    asked = plan([*GOOD, *[{"prompt": "a"}] * 20])
    with pytest.raises(DataError) as caught:
        materialize.run(asked)
    result = caught.value.result
    assert result is not None
    assert result.report == "reports/rows/report.html"
    page, data = read(asked, result)
    assert "Not fit: TooManyBadRows. 20 of 80 rows are rejected" in page.text.replace("\n", " ")
    assert "Fix the rows listed, or raise checks.maxRejected." in page.text
    assert data["failure"]["code"] == "TooManyBadRows"
    folder = Path(asked.store) / "reports" / "rows"
    rejected = [json.loads(line) for line in (folder / "rejected.jsonl").read_text().splitlines()]
    assert [row["row"] for row in rejected] == list(range(61, 81))
    assert not list(folder.glob("train*")), "rows that are not fit are not kept"
    # The next such try takes its place.
    with pytest.raises(DataError):
        materialize.run(plan([*GOOD, *[{"prompt": "a"}] * 30]))
    assert "30 of 90 rows" in (folder / "report.html").read_text()
    assert [path.name for path in folder.parent.iterdir()] == ["rows"]


def test_what_the_curation_took_is_shown(plan: Any) -> None:
    rows = [*GOOD, GOOD[7], {"prompt": "Write to ann@example.com", "completion": EVIL[:-1]}]
    asked = plan(rows, curation={"deduplicate": "Exact", "personalData": "Redact"})
    page, data = read(asked, materialize.run(asked))
    assert data["curatedExamples"] == {
        "PersonalData": [
            {
                "row": 62,
                "reason": "holds 1 Email",
                "value": json.dumps({"prompt": "Write to [EMAIL]", "completion": EVIL[:-1]}, separators=(",", ":")),
            }
        ],
        "ExactDuplicates": [
            {"row": 61, "reason": "repeats row 8", "value": json.dumps(GOOD[7], separators=(",", ":"))}
        ],
    }
    for words in ("Row 61 repeats row 8", "Row 62 holds 1 Email", "Write to [EMAIL]", "Every removed row is in"):
        assert words in page.text, words


def test_the_same_rows_with_other_rejected_ones_have_a_report_of_their_own(plan: Any) -> None:
    """Content is shared by its digest, what was wrong with other rows is not."""
    first = materialize.run(plan(GOOD))
    again = plan([*GOOD, {"prompt": "a"}])
    second = materialize.run(again)
    assert second.digest == first.digest
    assert (first.report, second.report) == (f"{first.path}/report.html", "reports/rows/report.html")
    page, data = read(again, second)
    assert "60 of 61 rows are good." in page.text
    assert data["result"]["rejected"] == 1
    names = {path.name for path in (Path(again.store) / "reports" / "rows").iterdir()}
    assert names == {"report.html", "report.json", "rejected.jsonl"}
    assert publishing.is_intact(Path(again.store) / str(second.path))


def test_what_was_read_before_the_format_failed_is_in_the_report(plan: Any) -> None:
    asked = plan([{"q": "a", "a": "b"}] * 5)
    with pytest.raises(DataError, match="columns a, q"):
        materialize.run(asked)
    assert "UnknownFormat" in (Path(asked.store) / "reports" / "rows" / "report.html").read_text()


@pytest.mark.parametrize(
    ("checks", "code", "words"),
    [
        (
            {"maxRejected": "100%", "maxRejectedRows": 1},
            "TooManyBadRows",
            "2 of 62 rows are rejected (checks.maxRejectedRows 1)",
        ),
        ({"maxRejected": "3%", "maxRejectedRows": 9}, "TooManyBadRows", "(checks.maxRejected 3%)"),
        ({"maxTokens": 11}, "TooManyBadRows", "TooLong"),
        ({"languages": ["de"]}, "WrongLanguage", "0.0% of the rows with a known language are de"),
        (
            {"languages": ["de", "fr"], "minLanguageShare": "1%"},
            "WrongLanguage",
            "are de or fr, checks.minLanguageShare",
        ),
    ],
)
def test_checks(plan: Any, checks: dict[str, Any], code: str, words: str) -> None:
    with pytest.raises(DataError) as caught:
        materialize.run(plan([*GOOD, {"prompt": "a"}, {"prompt": "b"}], checks=checks))
    assert caught.value.code == code
    assert words in caught.value.message


def test_checks_that_hold(plan: Any) -> None:
    checks = {"maxRejectedRows": 1, "maxTokens": 100, "languages": ["en"], "minLanguageShare": "95%", "minRows": 60}
    result = materialize.run(plan([*GOOD, {"prompt": "a"}], checks=checks))
    assert (result.rows, result.rejected) == (60, 1)
    assert result.languages[0].language == "en"


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("Where is the nearest hospital, and how do I get there?", "en"),
        ("Wo ist das nächste Krankenhaus, und wie komme ich dorthin?", "de"),
        ("¿Dónde está el hospital más cercano y cómo llego hasta allí?", "es"),
        ("最近的医院在哪里？我怎么去那里？请告诉我详细的路线。", "zh"),
        ("Где находится ближайшая больница и как туда добраться?", "ru"),
        ("Ki ni iṣẹ ti Chief Bọde Thomas n ṣe ki o to kuro laye?", "yo"),
        ("ok", "unknown"),
        ("12345 + 67890 = 80235 (100 %)", "unknown"),
        ("", "unknown"),
    ],
)
def test_a_language_is_detected_or_left_open(text: str, language: str) -> None:
    assert language_of(text) == language


def test_many_texts_at_once_have_the_language_of_each_alone() -> None:
    """Of real texts of many lengths, and of texts in no language."""
    texts = [
        "",
        "ok",
        "12345 + 67890 = 80235 (100 %)",
        "\ud800" * 40,
        "A" * 2000,
        "GROSSE BUCHSTABEN, UND SONST NICHTS?",
    ]
    for path in sorted((Path(sysconfig.get_path("purelib")) / "numpy").rglob("*.py"))[:20]:
        texts.append(path.read_text()[:1000])
    for name in (
        "Wo ist das nächste Krankenhaus?",
        "¿Dónde está el hospital?",
        "最近的医院在哪里？我怎么去那里？请告诉我",
        "Где находится ближайшая больница?",
        "Ki ni iṣẹ ti Chief Bọde Thomas n ṣe",
        "أين يوجد أقرب مستشفى؟",
    ):
        texts += [name, name * 3, f"{name} {name.upper()} Where is it?"]
    assert languages_of(texts) == [language_of(text) for text in texts]
    assert len({*languages_of(texts)}) > 6


@pytest.mark.parametrize(("checks", "identified"), [({}, 500), ({"languages": ["en"], "minLanguageShare": "1%"}, 700)])
def test_more_languages_are_identified_where_a_check_depends_on_them(
    plan: Any, checks: dict[str, Any], identified: int
) -> None:
    rows = [{"prompt": f"What is the name of number {n}?", "completion": f"It is called {n}."} for n in range(700)]
    result = materialize.run(plan(rows, checks=checks))
    assert sum(one.rows for one in result.languages) == identified


def test_the_sample_of_languages_does_not_depend_on_order() -> None:
    """3,000 rows; the sample keeps 2,000 of them; every third is German."""
    german = "Wo ist das nächste Krankenhaus, und wie komme ich dorthin?"
    english = "Where is the nearest hospital, and how do I get there?"
    rows = [{"text": f"{german if i % 3 == 0 else english} {i}"} for i in range(3000)]
    samples = []
    for order in (rows, rows[::-1]):
        with counting.counts(order) as counts:
            samples.append(counts.texts(2000, 1000, Workers()))
    assert samples[0] == samples[1]
    assert len(samples[0]) == 2000
    assert 0.28 < sum(text.startswith("Wo") for text in samples[0]) / 2000 < 0.39
