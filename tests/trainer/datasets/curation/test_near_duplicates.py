"""Near duplicates: which rows are, which only look so, and that none cross splits."""

from __future__ import annotations

import random

import pytest
from support.rows.curating import sentence, step, without

pytestmark = pytest.mark.trainer


def test_the_first_of_near_duplicates_stays_and_the_others_are_reported(curated):
    first, other = sentence(1), sentence(2)
    rows = [{"text": " ".join(words)} for words in (first, other, without(first, 30), sentence(3), without(first, 10))]
    result, files = curated(rows, curation={"deduplicate": "Near"})
    assert files["train"] == [rows[0], rows[1], rows[3]]
    near = step(result, "NearDuplicates")
    assert (near.removed, near.rows) == (2, [3, 5])
    assert near.example == "row 3: is like row 1 (Jaccard similarity 90%)", "55 of 61 different 3-grams are in both"


def about_documents(documents: int, questions: int) -> list[dict[str, str]]:
    """Rows of documents of 150 to 260 words with so many questions each; their questions and answers differ."""
    rows = []
    for document in range(documents):
        text = " ".join(sentence(document, 150 + document * 97 % 111))
        for question in range(questions):
            asked, told = (sentence(seed + 31 * document + question, 8) for seed in (10_000, 20_000))
            rows.append({"prompt": f"{text}\n\n{' '.join(asked)}?", "completion": " ".join(told)})
    return rows


def test_several_questions_about_one_document_are_no_duplicates(curated):
    rows = about_documents(60, 4)
    result, files = curated(rows, curation={"deduplicate": "Near"})
    assert files["train"] == rows
    assert step(result, "NearDuplicates").removed == 0


def test_questions_that_are_answered_by_calls_of_a_tool_are_no_duplicates(curated):
    """All rows have the tools, most of what they say; `id` and numbers are what the model writes."""
    rows = [
        {
            "messages": [
                {"role": "system", "content": " ".join(word for seed in range(4) for word in sentence(seed))},
                {"role": "user", "content": f"What of {what}?"},
                {
                    "role": "assistant",
                    "tool_calls": [
                        {"type": "function", "function": {"name": "look_up", "arguments": {"id": what, "n": 1}}}
                    ],
                },
            ]
        }
        for what in ("Berlin", "Paris", 7, 8)
    ]
    result, files = curated(rows, format="Chat", curation={"deduplicate": "Near"})
    assert len(files["train"]) == len(rows)
    assert step(result, "NearDuplicates").removed == 0


@pytest.mark.parametrize(
    "answers",
    [
        ("+", "-", "👍", "👎"),
        ("x = 1", "x = -1", "x + 1"),
        ("C++", "C#", "C"),
        ("a == b", "a != b"),
        ("a[i] = b", "a[i] != b"),
        ("x", "!x"),
    ],
)
def test_short_answers_that_differ_in_signs_are_no_duplicates(curated, answers):
    document = " ".join(word for seed in range(4) for word in sentence(seed))
    rows = [{"prompt": f"{document} Which of {at}?", "completion": answer} for at, answer in enumerate(answers)]
    copy = {"prompt": f"{document} Which one of 0?", "completion": f"{answers[0]} !"}
    _, files = curated([*rows, copy], curation={"deduplicate": "Near"})
    assert files["train"] == rows


def test_one_answer_with_two_labels_is_no_duplicate(curated):
    row = {"prompt": " ".join(sentence(1)), "completion": " ".join(sentence(2))}
    rows = [{**row, "label": True}, {**row, "label": False}, {**row, "label": False}]
    result, files = curated(rows, curation={"deduplicate": "Near"})
    assert [row["label"] for row in files["train"]] == [True, False]
    assert any("1 answer is labelled both true and false" in advice for advice in result.advice)


def test_duplicates_among_the_questions_about_one_document_are_found(curated):
    rows = about_documents(20, 8)
    copies = []
    for number, row in enumerate(rows):
        words = row["prompt"].split(" ")
        words[number % 100] = "changed"
        copies.append({**row, "prompt": " ".join(words)})
    mixed = random.Random(1).sample(rows + copies, k=len(rows) * 2)
    result, files = curated(mixed, curation={"deduplicate": "Near"})
    assert len({row["completion"] for row in files["train"]}) == len(rows), "one row of each pair is left"
    assert step(result, "NearDuplicates").removed >= 0.99 * len(rows)


def test_one_question_with_several_answers_is_reported_when_one_is_removed(curated):
    asked = [" ".join(sentence(seed)) for seed in range(9)]
    rows = [{"prompt": text, "completion": answer} for text in asked for answer in ("Yes.", "No.", "yes")]
    result, files = curated(rows, curation={"deduplicate": "Near"})
    assert files["train"] == rows[::3]
    near = step(result, "NearDuplicates")
    assert (near.removed, near.other_answers) == (18, 9)
    assert near.example == "row 2: is like row 1 (Jaccard similarity 97%) with another answer"
    assert any("9 removed near duplicates have another answer than the row that was kept" in a for a in result.advice)


def test_questions_about_one_document_never_cross_splits(curated):
    rows = about_documents(40, 4)
    _, files = curated(rows, splits={"validation": "30%", "nearDuplicates": "Group"})
    train, held_out = ({row["prompt"][:40] for row in files[name]} for name in ("train", "validation"))
    assert train
    assert held_out
    assert not train & held_out


@pytest.mark.parametrize(("similarity", "left"), [("91%", 2), ("90%", 1)])
def test_similarity_is_exact(curated, similarity, left):
    words = sentence(1)
    rows = [{"text": " ".join(words)}, {"text": " ".join(without(words, 30))}]
    wanted = {"deduplicate": "Near", "nearDuplicates": {"similarity": similarity}}
    result, _ = curated(rows, curation=wanted)
    assert result.rows == left


def test_texts_without_spaces_are_compared_by_characters(curated):
    text = "".join(random.Random(1).choices("人之初性本善性相近习相远苟不教性乃迁教之道贵以专", k=200))
    rows = [{"text": text}, {"text": text[:100] + "新" + text[101:]}, {"text": text[::-1]}]
    _, files = curated(rows, curation={"deduplicate": "Near"})
    assert files["train"] == [rows[0], rows[2]]


def test_near_duplicates_never_cross_splits(curated):
    rows = []
    for seed in range(60):
        words = sentence(seed)
        rows += [{"text": " ".join(words)}, {"text": " ".join(without(words, 20))}]
    division = {"validation": "30%", "nearDuplicates": "Group"}
    result, files = curated(rows, splits=division)
    families = {name: {row["text"][:20] for row in files[name]} for name in ("train", "validation")}
    assert not families["train"] & families["validation"]
    assert all(len(files[name]) == 2 * len(families[name]) for name in families), "each family is whole"
    assert result.rows == 120
    assert step(result, "NearDuplicateGroups").changed == 60
    _, scattered = curated(rows, splits={"validation": "30%"})
    assert {r["text"][:20] for r in scattered["train"]} & {r["text"][:20] for r in scattered["validation"]}


def test_groups_that_a_near_duplicate_connects_stay_together(curated):
    rows = []
    for seed in range(0, 120, 2):
        words = sentence(seed)
        pages = [words, sentence(seed + 1), without(words, 20), sentence(seed + 10_000)]
        rows += [{"text": " ".join(page), "book": f"{seed}-{n // 2}", "family": seed} for n, page in enumerate(pages)]
    division = {"validation": "30%", "nearDuplicates": "Group", "groupBy": "book"}
    _, files = curated(rows, splits=division)
    family = {row["text"]: row["family"] for row in rows}
    train, held_out = ({family[row["text"]] for row in files[name]} for name in ("train", "validation"))
    assert train
    assert held_out
    assert not train & held_out, "the two books of a family share a page but for one word"


def test_appended_near_duplicates_move_no_row(curated):
    rows = [{"text": " ".join(sentence(seed))} for seed in range(80)]
    more = [{"text": " ".join(without(sentence(seed), 20))} for seed in range(80)]
    division = {"validation": "30%", "nearDuplicates": "Group"}
    _, before = curated(rows, splits=division)
    _, after = curated(rows + more, splits=division)
    for name in ("train", "validation"):
        assert before[name] == after[name][: len(before[name])]
