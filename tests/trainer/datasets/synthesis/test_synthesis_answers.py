"""What becomes of each kind of answer. The server is real and what it says is known: a model with a script."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.servers.scripted import Said, Script, scripted

from hone_api.plan import MaterializePlan
from hone_trainer.datasets import materialize
from hone_trainer.errors import DataError, SourceError

pytestmark = pytest.mark.trainer

SEEDS = [
    {"prompt": "How many moons has Mars?", "completion": "Mars has 2 moons."},
    {"prompt": "Who wrote the play Hamlet?", "completion": "William Shakespeare."},
]
DOCUMENTS = [
    {"text": "The tower of Oslo was built in 1890. It is 40 metres high."},
    {"text": "The museum of Lima opens at nine. It is closed on Mondays."},
    {"text": "The river of Bern is called Aare. It flows into the Rhine."},
]


@pytest.fixture
def script() -> Iterator[Script]:
    with scripted() as server:
        yield server


@pytest.fixture
def plan(tmp_path: Path, script: Script) -> Callable[..., MaterializePlan]:
    """Makes a plan whose rows are not reviewed; keyword arguments go into synthesis."""

    def make(template: str, rows: list[dict[str, Any]], wanted: int = 1, **synthesis: Any) -> MaterializePlan:
        source = tmp_path / "source.jsonl"
        source.write_text("".join(json.dumps(row) + "\n" for row in rows))
        raft = synthesis.pop("raft", None)
        body = {"template": template, "endpoint": script.url, "rows": wanted, "parallel": 1}
        body |= {"review": {"required": False}}
        plan = {
            "name": "made",
            "source": {"uri": "pvc://data/source.jsonl"},
            "sourcePath": str(source),
            "synthesis": body | synthesis,
            "splits": {"validation": "0%"},
            "store": str(tmp_path / "store"),
            "limits": {"allowPrivateAddresses": True},
        }
        return MaterializePlan.model_validate(plan | ({"raft": raft} if raft else {}))

    return make


def made(plan: MaterializePlan) -> tuple[Any, list[dict[str, Any]]]:
    """(result, rows) of a run."""
    result = materialize.run(plan)
    lines = (Path(plan.store) / result.path / "train.jsonl").read_text().splitlines()
    return result, [json.loads(line) for line in lines]


def filtered(result: Any) -> dict[str, int]:
    return {f.reason: f.count for f in result.synthetic.filtered}


# -- templates -------------------------------------------------------------------------------------------------


def test_self_instruct_shows_seeds_and_reads_a_question_and_its_answer(plan, script):
    script.lines = ["**Question:** Who painted the Mona Lisa?\n**Answer:** Leonardo da Vinci."]
    _, rows = made(plan("SelfInstruct", SEEDS, instructions="A quiz."))
    assert rows == [{"prompt": "Who painted the Mona Lisa?", "completion": "Leonardo da Vinci."}]
    shown = script.asked[0]["messages"][-1]["content"]
    assert all(text in shown for seed in SEEDS for text in seed.values())
    assert "A quiz." in shown


def test_a_paraphrase_keeps_the_answer_of_its_seed(plan, script):
    script.lines = ["Tell me the number of moons of Mars."]
    _, rows = made(plan("Paraphrase", SEEDS[:1]))
    assert rows == [{"prompt": "Tell me the number of moons of Mars.", "completion": "Mars has 2 moons."}]


def test_a_preference_pair_is_the_seed_against_the_model(plan, script):
    script.lines = ["It has no moons at all."]
    _, rows = made(plan("Preference", SEEDS[:1]))
    (row,) = rows
    assert (row["chosen"], row["rejected"]) == ("Mars has 2 moons.", "It has no moons at all.")
    assert script.asked[0]["messages"] == [{"role": "user", "content": "How many moons has Mars?"}]


def test_a_question_from_a_document_comes_with_a_quote_that_is_in_it(plan, script):
    script.lines = [
        "Question: When was the tower built?\nAnswer: In 1890.\nQuote: The tower of Oslo was built in 1890."
    ]
    _, rows = made(plan("QuestionsFromDocuments", DOCUMENTS[:1]))
    assert rows == [{"prompt": "When was the tower built?", "completion": "In 1890."}]


def about_the_document(shown: str) -> str:
    sentence = shown.split("Document:\n")[1].split(". ")[0] + "."
    return f"Question: What does it say?\nReasoning: ##begin_quote##{sentence}##end_quote##\nAnswer: That."


def test_raft_has_the_oracle_distractors_and_reasoning_that_quotes(plan, script):
    script.lines = [about_the_document]
    settings = {"distractors": 2, "withoutOracle": "0%"}
    result, rows = made(plan("RAFT", DOCUMENTS, raft=settings))
    text = json.dumps(rows[0])
    assert all(document["text"] in text for document in DOCUMENTS)
    assert "##begin_quote##" in text
    record = json.loads((Path(plan("RAFT", DOCUMENTS).store) / result.path / "synthetic.jsonl").read_text())
    assert record["provenance"]["template"] == "RAFT"
    assert len(record["row"]["distractors"]) == 2


def test_the_provenance_of_a_row_has_no_personal_data(plan, script):
    script.lines = ["Question: Who knows the way?\nAnswer: Ask ann@example.com."]
    wanted = plan("SelfInstruct", SEEDS)
    wanted = wanted.model_copy(update={"curation": wanted.curation.model_copy(update={"personal_data": "Redact"})})
    result, rows = made(wanted)
    assert rows[0]["completion"] == "Ask [EMAIL]."
    record = json.loads((Path(wanted.store) / result.path / "synthetic.jsonl").read_text())
    assert record["row"] == rows[0]
    assert record["provenance"]["endpoint"] == "127.0.0.1"


# -- filters ---------------------------------------------------------------------------------------------------

GOOD = "Question: What is the name of the river of Bern?\nAnswer: Aare.\nQuote: The river of Bern is called Aare."


@pytest.mark.parametrize(
    ("template", "source", "answer", "good", "reason"),
    [
        ("SelfInstruct", SEEDS, "Here is a poem.", "Question: Who?\nAnswer: Ann.", "WrongFormat"),
        ("SelfInstruct", SEEDS, "Question: Who?\nAnswer:", "Question: Who?\nAnswer: Ann.", "WrongFormat"),
        ("SelfInstruct", SEEDS, "Question: Who?\nAnswer: An endless …", "Question: Who?\nAnswer: Ann.", "Truncated"),
        (
            "SelfInstruct",
            SEEDS,
            "Question: Who wrote the play Hamlet?\nAnswer: William Shakespeare!",
            "Question: Which river flows through Paris?\nAnswer: The Seine.",
            "Duplicate",
        ),
        ("QuestionsFromDocuments", DOCUMENTS[2:], GOOD.replace("called", "named"), GOOD, "NotVerified"),
        ("Preference", SEEDS[:1], "Mars has 2 moons.", "None that I know of.", "NotVerified"),
    ],
)
def test_an_answer_that_is_not_a_row_is_filtered_with_its_reason(plan, script, template, source, answer, good, reason):
    script.lines = [answer, good]
    result, rows = made(plan(template, source))
    assert filtered(result) == {reason: 1}
    assert len(rows) == 1


def test_a_paraphrase_that_changes_a_number_is_not_verified(plan, script):
    seeds = [{"prompt": "What is 17 percent of 250?", "completion": "42.5"}]
    script.lines = ["Work out 18 percent of 250, please.", "Please work out how much 17 percent of 250 is."]
    result, _ = made(plan("Paraphrase", seeds))
    assert filtered(result) == {"NotVerified": 1}


def test_a_row_of_the_model_that_comes_again_is_a_duplicate(plan, script):
    script.lines = [
        "Question: Which river flows through Paris?\nAnswer: The Seine.",
        "Question: Which river flows through Paris?\nAnswer: The Seine!",
        "Question: How tall is the Eiffel tower?\nAnswer: About 330 metres.",
    ]
    result, rows = made(plan("SelfInstruct", SEEDS, wanted=2))
    assert filtered(result) == {"Duplicate": 1}
    assert len(rows) == 2


def test_the_judge_decides_and_its_score_stays_with_the_row(plan, script):
    script.lines = [
        "Question: Who?\nAnswer: Nobody knows.",
        "2",
        "Question: Which river flows through Paris?\nAnswer: The Seine.",
        "Score: 5",
    ]
    wanted = plan("SelfInstruct", SEEDS, filters={"judge": {"minScore": 4}})
    result, _ = made(wanted)
    assert filtered(result) == {"LowScore": 1}
    record = json.loads((Path(wanted.store) / result.path / "synthetic.jsonl").read_text())
    assert record["provenance"]["score"] == 5
    assert script.asked[1]["temperature"] == 0


def test_a_model_that_never_keeps_to_the_form_is_reported_instead_of_asked_forever(plan, script):
    script.lines = ["No."]
    with pytest.raises(DataError) as caught:
        materialize.run(plan("SelfInstruct", SEEDS, wanted=2))
    assert caught.value.code == "NothingGenerated"
    assert "20 WrongFormat" in caught.value.message
    assert len(script.asked) == 20


FILTERED = (400, {"error": {"message": "The prompt was filtered."}})
RIVERS = [f"Question: Which river is number {n} of {'abcdefghijklmnopqrstuvwxyz'[n]}?\nAnswer: {n}." for n in range(26)]


def test_a_prompt_that_is_refused_costs_no_rows_and_is_not_asked_again(plan, script):
    wanted = plan("SelfInstruct", SEEDS, wanted=20, filters={"maxSimilarity": "100%"})
    script.lines = [RIVERS[0], FILTERED, *RIVERS[1:10], (401, {"error": "Who are you?"})]
    with pytest.raises(SourceError, match="answers 401"):
        materialize.run(wanted)
    script.lines, script.asked = RIVERS[10:], []
    result, rows = made(wanted)
    assert filtered(result) == {"Refused": 1}
    assert (len(rows), len(script.asked)) == (20, 10)


def test_a_row_that_the_judge_refuses_is_filtered(plan, script):
    script.lines = [RIVERS[0], FILTERED, *(line for river in RIVERS[1:21] for line in (river, "5"))]
    result, rows = made(plan("SelfInstruct", SEEDS, 20, filters={"maxSimilarity": "100%", "judge": {"minScore": 4}}))
    assert (filtered(result), len(rows)) == ({"Refused": 1}, 20)


def test_a_server_that_refuses_many_prompts_is_reported_and_may_be_fixed(plan, script):
    wanted = plan("SelfInstruct", SEEDS, wanted=20, filters={"maxSimilarity": "100%"})
    script.lines = [FILTERED]
    with pytest.raises(
        SourceError, match=r"2 of 2 prompts are refused, the last one: .* The prompt was filtered\."
    ) as caught:
        materialize.run(wanted)
    assert caught.value.code == "EndpointRefused"
    script.lines = list(RIVERS)
    assert filtered(made(wanted)[0]) == {"Refused": 1}


def test_the_log_counts_tokens_of_answers_and_judges(plan, script, caplog):
    """Those that a filter drops are also paid for."""

    def completion(text: str, read: Any, written: Any) -> Said:
        choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
        return 200, {"choices": [choice], "usage": {"prompt_tokens": read, "completion_tokens": written}}

    script.lines = [
        completion("no question at all", 1000, 100),
        completion("Question: Who painted the Mona Lisa?\nAnswer: Leonardo.", 1000, 100),
        completion("5", 200, 1),
        completion("Question: How high is the Brocken?\nAnswer: 1,141 metres.", "many", 10),
        completion("5", 200, 1),
    ]
    with caplog.at_level("INFO", "hone.trainer"):
        made(plan("SelfInstruct", SEEDS, 2, filters={"judge": {"minScore": 3}}))
    told = "2,400 tokens read and 202 written, 1 answer not counted by the server"
    assert any(f"2 of 2 rows from 3 answers, 1 WrongFormat; in this run {told}" in line for line in caplog.messages)


def test_without_counts_the_log_is_silent_about_tokens(plan, script, caplog):
    script.lines = ["Question: Who painted the Mona Lisa?\nAnswer: Leonardo."]
    with caplog.at_level("INFO", "hone.trainer"):
        made(plan("SelfInstruct", SEEDS))
    assert any(line.endswith("1 of 1 row from 1 answer") for line in caplog.messages)


def test_a_table_of_a_document_is_shown_without_its_tags(plan, script):
    table = (
        '<table class="wide"><tr><th>Tower</th><th>Built</th></tr>\n<tr><td>Oslo</td><td><b>1890</b></td></tr></table>'
    )
    script.lines = ["Question: When was the tower built?\nAnswer: In 1890.\nQuote: Oslo | 1890"]
    _, rows = made(plan("QuestionsFromDocuments", [{"text": f"# Towers\n\n{table}\n\n`<td>` is a cell of HTML."}]))
    assert rows == [{"prompt": "When was the tower built?", "completion": "In 1890."}]
    shown = script.asked[0]["messages"][-1]["content"]
    assert "# Towers\n\nTower | Built\nOslo | 1890\n\n`<td>` is a cell of HTML." in shown
