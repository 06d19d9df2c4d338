"""Curation: what each step removes, that the first of equal rows stays, and that order and digest are steady."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support.rows.curating import sentence, step, without

from hone_trainer.datasets.texts import toxicity
from hone_trainer.errors import ConfigError, DataError

pytestmark = pytest.mark.trainer


def test_without_curation_nothing_is_removed(curated):
    result, files = curated([{"text": "same"}] * 3)
    assert (result.rows, result.duplicates, result.curation) == (3, 2, [])
    assert "removed" not in files


def test_rows_that_differ_in_case_spacing_and_unicode_form_alone_are_duplicates(curated):
    rows = [
        {"prompt": "What is a caf\u00e9?", "completion": "A bar."},
        {"prompt": "Who?", "completion": "Me."},
        {"prompt": "  what is a  CAFE\u0301?\n", "completion": "a bar."},
        {"prompt": "What is a caf\u00e9?", "completion": "A bar!"},
        {"prompt": "What is a caf\u00e9? A bar.", "completion": "."},
        {"prompt": "Who?", "completion": "Me."},
    ]
    result, files = curated(rows, curation={"deduplicate": "Exact"})
    assert files["train"] == [rows[0], rows[1], rows[3], rows[4]]
    assert step(result, "ExactDuplicates").model_dump() == {
        "step": "ExactDuplicates",
        "removed": 2,
        "changed": 0,
        "other_answers": 0,
        "rows": [3, 6],
        "example": "row 3: repeats row 1",
    }
    assert files["removed"] == [
        {"row": 3, "step": "ExactDuplicates", "reason": "repeats row 1", "value": rows[2]},
        {"row": 6, "step": "ExactDuplicates", "reason": "repeats row 2", "value": rows[5]},
    ]


def test_the_same_rows_give_the_same_digest(curated):
    rows = [{"text": " ".join(without(sentence(seed // 3), seed % 3))} for seed in range(90)]
    first, _ = curated(rows, curation={"deduplicate": "Near"})
    second, _ = curated(rows, curation={"deduplicate": "Near"})
    second.source_version = first.source_version  # of a file that was written twice
    assert first == second
    assert first.rows == 30


def test_too_few_rows_that_are_left_are_reported_by_step(curated):
    with pytest.raises(DataError) as caught:
        curated([{"text": "same"}] * 5, curation={"deduplicate": "Exact"}, checks={"minRows": 2})
    assert caught.value.code == "TooFewRows"
    assert "1 of 5 valid rows left (removed: ExactDuplicates 4), checks.minRows is 2" in caught.value.message


def test_nothing_of_the_curation_is_left_on_disk(curated, tmp_path: Path):
    curated([{"text": " ".join(sentence(seed))} for seed in range(9)], curation={"deduplicate": "Near"})
    (folder,) = (tmp_path / "store" / "datasets").iterdir()
    assert sorted(p.name for p in folder.iterdir() if p.suffix != ".html") == [
        "croissant.json",
        "manifest.json",
        "rejected.jsonl",
        "report.json",
        "train.jsonl",
        "train.keys.parquet",
    ]


def test_personal_data_is_redacted_where_it_stands(curated):
    rows = [
        {"messages": [{"role": "user", "content": "Who?"}, {"role": "assistant", "content": "Ann, ann@example.com."}]},
        {"messages": [{"role": "user", "content": "Is 1.2 > 1.1?"}, {"role": "assistant", "content": "Yes."}]},
        {
            "messages": [
                {"role": "user", "content": "Call me: +44 20 7946 0958 or +44 20 7946 0959"},
                {"role": "assistant", "content": "My address is 8.8.8.8, at home 192.168.1.10."},
            ]
        },
    ]
    result, files = curated(rows, curation={"personalData": "Redact"})
    texts = [[turn["content"] for turn in row["messages"]] for row in files["train"]]
    assert texts == [
        ["Who?", "Ann, [EMAIL]."],
        ["Is 1.2 > 1.1?", "Yes."],
        ["Call me: [PHONE] or [PHONE]", "My address is [IP_ADDRESS], at home 192.168.1.10."],
    ]
    assert step(result, "PersonalData").model_dump() == {
        "step": "PersonalData",
        "removed": 0,
        "changed": 2,
        "other_answers": 0,
        "rows": [1, 3],
        "example": "row 1: holds 1 Email",
    }
    assert "removed" not in files


def test_rows_with_personal_data_are_refused_and_kept_without_it(curated):
    rows = [{"prompt": "Pay to", "completion": "DE89 3704 0044 0532 0130 00"}, {"prompt": "Pay", "completion": "no"}]
    result, files = curated(rows, curation={"personalData": "Refuse"})
    assert files["train"] == rows[1:]
    (removed,) = files["removed"]
    assert (removed["reason"], removed["value"]) == ("holds 1 IBAN", {"prompt": "Pay to", "completion": "[IBAN]"})
    assert "DE89" not in result.model_dump_json()


@pytest.mark.parametrize("wanted", ["Redact", "Refuse"])
def test_rejected_rows_are_kept_without_personal_data(curated, tmp_path, wanted):
    rows = [{"text": "Good."}, {"text": "", "notes": [{"from": "ann@example.com"}, 7]}]
    result, files = curated(rows, curation={"personalData": wanted}, checks={"maxRejected": "50%"})
    (rejected,) = files["rejected"]
    assert rejected["value"] == {"text": "", "notes": [{"from": "[EMAIL]"}, 7]}
    assert "ann@" not in (tmp_path / "store" / result.report).read_text()


def test_only_the_kinds_that_are_named_are_looked_for(curated):
    rows = [{"text": "Write to ann@example.com from 8.8.8.8"}]
    _, files = curated(rows, curation={"personalData": "Redact", "personalDataTypes": ["IPAddress"]})
    assert files["train"] == [{"text": "Write to ann@example.com from [IP_ADDRESS]"}]


def test_rows_out_of_the_bounds_of_length_are_removed(curated):
    rows = [{"text": "x" * length} for length in (4, 8, 40, 44)]
    _, files = curated(rows, curation={"minTokens": 2, "maxTokens": 10})
    assert files["train"] == rows[1:3]
    assert [r["reason"] for r in files["removed"]] == [
        "has about 1 tokens, minTokens is 2",
        "has about 11 tokens, maxTokens is 10",
    ]
    with pytest.raises(ConfigError, match="minTokens 5 is over"):
        curated(rows, curation={"minTokens": 5, "maxTokens": 4})


def test_rows_in_other_languages_are_removed_and_those_too_short_to_detect_stay(curated):
    rows = [
        {"text": "The scheduler looks for a node that has room for the pod."},
        {"text": "Der Scheduler sucht einen Knoten, der genug Platz für den Pod hat."},
        {"text": "42"},
    ]
    result, files = curated(rows, curation={"languages": ["en"]})
    assert files["train"] == [rows[0], rows[2]]
    assert step(result, "Languages").example == "row 2: is in language de"


def test_quality_is_the_share_of_rules_that_a_text_keeps(curated):
    good = "The service gives the pods of a set one name, so that their clients need not know which of them are alive."
    bad = "lorem ipsum # # # # # #\n" * 9 + "enable JavaScript to go on"
    result, files = curated(
        [{"text": good}, {"text": bad}], curation={"scores": [{"scorer": "Quality", "minimum": "80%"}]}
    )
    assert files["train"] == [{"text": good}]
    assert step(result, "Quality").example == (
        "row 2: has the score 40%, minimum is 80%: Symbols, StopWords, RepeatedLines, RepeatedPhrases, Placeholder,"
        " Boilerplate"
    )


@pytest.mark.parametrize(
    ("text", "probability"),
    [
        ("You are a fucking idiot.", 1.0),
        ("Shut up", 0.981705),
        ("I will kill this process, then shut down the server.", 0.868408),
        ("Thank you, have a nice day.", 0.010769),
        ("", 0.036376),
        ("日本語 a 1", 0.036376),
    ],
)
def test_toxicity_is_what_the_model_said_before_its_numbers_were_copied(text, probability):
    assert toxicity.probability(text) == pytest.approx(probability, abs=1e-6)
    assert toxicity.probability(text.upper()) == pytest.approx(probability, abs=1e-6)


def test_toxicity_is_that_of_the_worst_text_and_several_scores_count(curated):
    rows = [
        {"prompt": "Thank you, have a nice day.", "completion": "You too, my friend."},
        {"prompt": "Hello.", "completion": "You are a fucking idiot."},
    ]
    scores = [{"scorer": "Toxicity", "maximum": "80%"}, {"scorer": "Toxicity", "maximum": "99%"}]
    result, files = curated(rows, curation={"scores": scores})
    assert files["train"] == rows[:1]
    assert [s.step for s in result.curation] == ["Toxicity", "Toxicity-2"]
    assert step(result, "Toxicity").rows == [2]


def exam(tmp_path: Path, *records) -> dict:
    path = tmp_path / "exam.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return {"name": "exam", "split": "test", "path": str(path), "digest": "sha256:" + "0" * 64}


def test_rows_of_an_evaluation_set_are_removed_wherever_they_stand(curated, tmp_path):
    question = "A train leaves at nine with twelve cars and forty seats in each of them. How many people can sit?"
    answer = "Twelve cars with forty seats in each of them are 480 seats."
    wanted = exam(
        tmp_path, {"prompt": question, "completion": answer}, {"prompt": "Capital of France?", "completion": "Paris"}
    )
    rows = [
        {"prompt": "How many seats?", "completion": "Count them."},
        {"prompt": f"Solve it: {question.upper()} Think.", "completion": "480"},
        {"prompt": question.replace("people", "persons"), "completion": "520"},
        {"prompt": "capital of france", "completion": "Lyon"},
        {"prompt": "What is the capital of France?", "completion": "Paris"},
        {"prompt": "Say it.", "completion": answer},
    ]
    fields = {"curation": {"contamination": {"datasets": [{"name": "exam"}]}}, "evaluationSets": [wanted]}
    _, files = curated(rows, **fields)
    assert files["train"] == [rows[0], rows[4]]
    assert [r["reason"] for r in files["removed"]] == [
        "holds 13 8-grams of row 1 of exam/test",
        "holds 10 8-grams of row 1 of exam/test",
        "has the prompt of row 2 of exam/test",
        "holds 5 8-grams of row 1 of exam/test",
    ]


def test_the_template_of_an_evaluation_set_is_no_contamination(curated, tmp_path):
    template = "Read the following text with care and say whether what it tells is good or bad news for the reader: {}"
    wanted = exam(tmp_path, *({"prompt": template.format(f"{i} was sold"), "completion": "bad"} for i in range(30)))
    rows = [
        {"prompt": template.format(f"{i} was {what}"), "completion": "bad"} for i, what in ((50, "sold"), (7, "sold"))
    ]
    fields = {"curation": {"contamination": {"datasets": [{"name": "exam"}]}}, "evaluationSets": [wanted]}
    _, files = curated(rows, **fields)
    assert files["train"] == rows[:1]


@pytest.mark.parametrize(
    ("question", "clean"),
    [
        (
            "भारत की राजधानी दिल्ली में किस नदी के किनारे पर लाल किला बना हुआ है और उसका नाम क्या है?",
            "दिल्ली में किस नदी के किनारे पर लोग रहते हैं?",
        ),
        (
            "இந்தியாவின் தலைநகரான டெல்லியில் எந்த நதியின் கரையில் செங்கோட்டை அமைந்துள்ளது அதன் பெயர் என்ன?",
            "டெல்லியில் எந்த நதியின் கரையில் மக்கள் வாழ்கிறார்கள்?",
        ),
    ],
)
def test_vowels_of_indic_scripts_are_parts_of_words(curated, tmp_path, question, clean):
    """A phrase that both have is not 8-grams of letters."""
    rows = [{"prompt": f"{question}!", "completion": "a"}, {"prompt": clean, "completion": "b"}]
    fields = {"curation": {"contamination": {"datasets": [{"name": "exam"}]}}}
    wanted = exam(tmp_path, {"prompt": question, "completion": "c"})
    _, files = curated(rows, **fields, evaluationSets=[wanted])
    assert files["train"] == rows[1:]


def test_answers_that_differ_in_vowels_of_devanagari_are_no_duplicates(curated):
    rows = [{"prompt": f"{word} क्या है?", "completion": word} for word in ("की", "का", "के", "को")]
    _, files = curated(rows, curation={"deduplicate": "Near"})
    assert files["train"] == rows


def test_each_value_of_a_column_has_at_most_so_many_rows(curated):
    rows = [{"text": f"row {i}", "kind": "ab"[i % 3 == 0]} for i in range(90)]
    result, files = curated(rows, curation={"balance": {"column": "kind", "maxRows": 20}})
    kinds = [rows[int(row["text"].split()[1])]["kind"] for row in files["train"]]
    assert (kinds.count("a"), kinds.count("b")) == (20, 20)
    assert files["train"] == sorted(files["train"], key=lambda row: int(row["text"].split()[1])), "in their order"
    _, again = curated(rows, curation={"balance": {"column": "kind", "maxRows": 20}})
    _, other = curated(rows, curation={"balance": {"column": "kind", "maxRows": 20}, "seed": 1})
    assert again["train"] == files["train"] != other["train"]
    assert step(result, "Balance").removed == 50
    assert files["removed"][0]["reason"].startswith('is one of 60 with "a"')


def test_a_row_without_the_column_to_balance_is_rejected(curated):
    rows = [{"text": "a", "kind": 1}, {"text": "b", "kind": 1}, {"text": "c"}]
    result, _ = curated(rows, curation={"balance": {"column": "kind", "maxRows": 1}}, checks={"maxRejected": "50%"})
    assert (result.rows, result.rejected, result.errors[0].code) == (1, 1, "MissingColumn")


def test_a_diverse_subset_has_each_subject(curated):
    subjects = {
        "cooking": "Boil the {} in salted water for ten minutes and serve it with butter.",
        "law": "The tenant must give notice of {} to the landlord in writing.",
        "football": "The {} scored two goals in the second half of the match.",
        "astronomy": "The {} orbits a distant star in the outer part of our galaxy.",
    }
    things = ("first", "second", "third", "fourth", "fifth", "sixth")
    rows = [{"text": text.format(thing)} for thing in things for text in subjects.values()]
    result, files = curated(rows, curation={"diverse": {"rows": 4}})
    assert len({next(s for s, t in subjects.items() if t.split()[-1] in row["text"]) for row in files["train"]}) == 4
    assert step(result, "Diverse").removed == 20
    assert "stands for it (cosine similarity" in files["removed"][0]["reason"]
    _, again = curated(rows, curation={"diverse": {"rows": 4}})
    assert again["train"] == files["train"]
    assert curated(rows, curation={"diverse": {"rows": 99}})[0].rows == 24


def test_steps_run_in_the_documented_order(curated, tmp_path):
    everything = {
        "personalData": "Redact",
        "minTokens": 1,
        "languages": ["en"],
        "scores": [{"scorer": "Toxicity", "maximum": "99%"}, {"scorer": "Quality", "minimum": "10%"}],
        "deduplicate": "Near",
        "contamination": {"datasets": [{"name": "exam"}]},
        "balance": {"column": "text", "maxRows": 5},
        "diverse": {"rows": 2},
    }
    wanted = [exam(tmp_path, {"text": "something that is in no row at all"})]
    result, files = curated([{"text": "A row."}, {"text": "Another."}], curation=everything, evaluationSets=wanted)
    assert [s.step for s in result.curation] == [
        "PersonalData",
        "Length",
        "Languages",
        "Toxicity",
        "Quality",
        "ExactDuplicates",
        "NearDuplicates",
        "Contamination",
        "Balance",
        "Diverse",
    ]
    assert len(files["train"]) == 2


def test_no_valid_row_is_not_an_error_of_the_curation(curated):
    everything = {"deduplicate": "Near", "balance": {"column": "x", "maxRows": 5}, "diverse": {"rows": 2}}
    with pytest.raises(DataError) as caught:
        curated([{"text": ""}, {"text": ""}], curation=everything, format="Text")
    assert caught.value.code == "TooManyBadRows"
