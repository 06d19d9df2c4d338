"""Rows that would be read wrongly are refused, and the message has the mapping that reads them."""

from __future__ import annotations

from typing import Any

import pytest
from support.rows.conversations import CHAT, PAIR, TALK, THOUGHT, Row

from hone_trainer.datasets.formats import detect
from hone_trainer.datasets.readers.rows import RowError
from hone_trainer.errors import ConfigError, DataError

pytestmark = pytest.mark.pure
REFUSED: dict[str, tuple[Row, str, str]] = {
    "TRL step-wise": (
        {"prompt": "q", "completions": ["a", "b"], "labels": [True, False]},
        "UnknownFormat",
        "TRL step-wise supervision",
    ),
    "fill in the middle": (
        {"prefix": "def f(", "middle": "x", "suffix": "): return x", "repo": "r"},
        "UnknownFormat",
        "{prompt: prefix, completion: middle}",
    ),
    "ranked completions": ({"prompt": "q", "completions": ["a", "b"]}, "UnknownFormat", "ranked completions"),
    "pre-tokenised": ({"input_ids": [1, 2], "labels": [1, 2]}, "UnknownFormat", "give the texts"),
    "JudgeLM's reasons": (
        {
            "question_body": "q",
            "answer1_body": "good",
            "answer1_model_id": "a",
            "answer2_body": "bad",
            "text": "9 3\nThe first is best.",
        },
        "UnknownFormat",
        "text",
    ),
    "a verdict": (
        {"question_body": "q", "answer1_body": "good " * 9, "answer2_body": "bad " * 9, "text": "9 3"},
        "UnknownFormat",
        "The column answer1_body is ten times as long as text",
    ),
    "Axolotl segments": ({"segments": [{"label": True, "text": "a"}]}, "UnknownFormat", "Axolotl segments"),
    "OASST": (
        {"message_id": "1", "parent_id": None, "role": "prompter", "text": "t"},
        "UnknownFormat",
        "a root to a leaf",
    ),
    "translation": ({"translation": {"de": "a", "en": "b"}}, "UnknownFormat", "prompt: translation.de"),
    "summaries": ({"document": "d", "summary": "s"}, "UnknownFormat", "lines('Summarise:', document)"),
    "prompts alone": ({"prompt": "q", "id": "a-1"}, "UnknownFormat", "prompts without answers. Add what is learned"),
    "prompts of turns alone": ({"prompt": [TALK[0]]}, "UnknownFormat", "prompts without answers"),
    **{
        f"texts in {name}": ({name: ["hi", "hello"], "act": [1, 2]}, "UnknownFormat", f"prompt: '{name}[0]'")
        for name in ("dialog", "utterances", "messages", "conversations")
    },
    "classes as numbers": (
        {"text": "t", "label": 1},
        "UnknownFormat",
        """{prompt: text, completion: 'name(label, `["name of 0", "name of 1"]`)'}""",
    ),
    "many classes as numbers": ({"text": "t", "label": 76}, "UnknownFormat", '"name of 3", "…"]`)'),
    "preference with a text of the asker's": (
        {"headline": "q", "chosen": "It is so. Yes.", "rejected": "It is so. No."},
        "UnreadColumns",
        "{prompt: headline}",
    ),
    "0 and 1 with an answer": ({"prompt": "q", "completion": "a", "label": 1}, "UnreadColumns", "format: KTO"),
    "kto_tag": ({"prompt": "q", "completion": "a", "kto_tag": "true"}, "UnreadColumns", "format: KTO"),
    "verdicts of 1 and -1": ({"prompt": "q", "completion": "a", "label": -1}, "UnreadColumns", "label: label"),
    "verdicts in words": ({"prompt": "q", "completion": "a", "label": "Good"}, "UnreadColumns", "format: KTO"),
    "is_correct": ({"prompt": "q", "completion": "a", "is_correct": False}, "UnreadColumns", "label: is_correct"),
    **{
        f"text and {name}": (
            {"text": "t", name: "a", "id": "1"},
            "UnknownFormat",
            f"{{prompt: text, completion: {name}}} is meant, or format Text",
        )
        for name in ("summary", "response", "output", "target", "code")
    },
    "text, question and answer": (
        {"text": "t", "question": "q", "answer": "a"},
        "UnknownFormat",
        '{prompt: "lines(text, question)", completion: answer}',
    ),
    **{
        f"{name} with a question": ({"question": "q", "answer": "B", name: value}, "UnreadColumns", f"column {name}")
        for name, value in (("choices", ["x", "y"]), ("options", ["x", "y"]), ("A", "x"), ("opa", "x"))
    },
    **{
        f"{name} with an answer": (
            {"prompt": "q", "completion": "a", name: "hm"},
            "UnreadColumns",
            f"content: answer, reasoning: {name}",
        )
        for name in ("reasoning", "reasoning_content", "thinking")
    },
    "tools with an answer to check by": (
        {"prompt": "q", "answer": "4", "tools": [{"name": "f"}]},
        "UnreadColumns",
        "tools is not read by format Verifiable",
    ),
    "context with prompt": ({"prompt": "q", "completion": "a", "context": "c"}, "UnreadColumns", "context"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_would_be_read_wrongly_is_refused_with_the_way_out(name: str) -> None:
    row, code, words = REFUSED[name]
    with pytest.raises(DataError) as caught:
        detect.choose("Auto", {}, [row] * 3)
    assert caught.value.code == code
    assert words in caught.value.message


@pytest.mark.parametrize(
    ("row", "columns", "record"),
    [
        (
            {"text": "t", "question": "q", "answer": "a"},
            {"prompt": "lines(text, question)", "completion": "answer"},
            {"prompt": "t\n\nq", "completion": "a"},
        ),
        (
            {"question": "hi", "answer": "hello", "reasoning": "hm"},
            {
                "messages": "[{role: 'user', content: question},"
                " {role: 'assistant', content: answer, reasoning: reasoning}]"
            },
            THOUGHT,
        ),
    ],
)
def test_the_suggested_mapping_reads_what_was_unread(row: Row, columns: dict[str, str], record: Row) -> None:
    assert detect.choose("Auto", columns, [row] * 3).normalise(row) == record


def test_the_suggested_mapping_for_classes_reads_them() -> None:
    rows = [{"text": "t", "label": label} for label in (0, 1)]
    with pytest.raises(RowError, match="completion is a number") as caught:
        detect.choose("PromptCompletion", {"prompt": "text", "completion": "label"}, rows).normalise(rows[1])
    expression = str(caught.value).partition("completion: '")[2].removesuffix("'}")
    found = detect.choose("PromptCompletion", {"prompt": "text", "completion": expression}, rows)
    assert [found.normalise(row)["completion"] for row in rows] == ["name of 0", "name of 1"]


@pytest.mark.parametrize(
    ("label", "verdict"), [(1.0, True), (0.0, False), (-1, False), ("1", True), ("Good", True), ("bad", False)]
)
def test_a_verdict_that_is_mapped_to_a_label_is_read_as_one(label: Any, verdict: bool) -> None:
    row = {"prompt": "q", "completion": "a", "is_correct": label}
    assert detect.choose("KTO", {"label": "is_correct"}, [row]).normalise(row)["label"] is verdict


@pytest.mark.parametrize("name", [name for name, (_, code, _) in REFUSED.items() if code == "UnreadColumns"])
def test_who_ignores_the_column_insists(name: str) -> None:
    row, *_ = REFUSED[name]
    others = set(row) - {"prompt", "completion", "chosen", "rejected", "question", "answer"}
    found = detect.choose("Auto", {}, [row] * 3, others)
    assert set(found.normalise(row)) <= {"prompt", "completion", "chosen", "rejected", "answer"}


WRITTEN_OUT: dict[str, tuple[str, dict[str, str], Row, str]] = {
    "a question with two answers": (
        "Preference",
        {},
        {"question": "q", "chosen": "It is so. Yes.", "rejected": "It is so. No."},
        "{prompt: question}",
    ),
    "the same with roles mapped to their own names": (
        "Preference",
        {"chosen": "chosen", "rejected": "rejected"},
        {"question": "q", "chosen": "It is so. Yes.", "rejected": "It is so. No."},
        "{prompt: question}",
    ),
    "a question in two columns": (
        "Preference",
        {},
        {"instruction": "q", "input": "i", "chosen": "It is so. Yes.", "rejected": "It is so. No."},
        '{prompt: "lines(instruction, input)"}',
    ),
    "a label with an answer": (
        "PromptCompletion",
        {"prompt": "question"},
        {"question": "q", "completion": "a", "label": "False"},
        "format: KTO",
    ),
    "a label with a chat": ("Chat", {}, {**CHAT, "label": False}, "format: KTO"),
    "a label with an instruction": ("Alpaca", {}, {"instruction": "q", "output": "a", "label": 0}, "format: KTO"),
    "context with an answer": ("PromptCompletion", {}, {**PAIR, "context": "c"}, "lines(context"),
    "context with an answer to check by": (
        "Verifiable",
        {},
        {"prompt": "q", "answer": "4", "context": "c"},
        "lines(c",
    ),
    "context with an answer with the verdict 0": ("KTO", {}, {**PAIR, "label": 0, "context": "c"}, "lines(context"),
}


@pytest.mark.parametrize("name", WRITTEN_OUT)
def test_a_format_that_is_written_out_drops_no_column_silently(name: str) -> None:
    format, columns, row, words = WRITTEN_OUT[name]
    with pytest.raises(DataError, match="ignoreColumns") as caught:
        detect.choose(format, columns, [row] * 3)
    assert caught.value.code == "UnreadColumns"
    assert words in caught.value.message
    others = {"question", "instruction", "input", "label", "context"} & row.keys() - {*columns.values()}
    needed = {*detect.FORMATS[format].required}
    found = detect.choose(format, columns, [row] * 3, others - needed)
    assert found.normalise(row)


@pytest.mark.parametrize("early", [{}, {"label": "", "context": None}])
@pytest.mark.parametrize(("column", "value"), [("label", False), ("context", "c"), ("tools", [{"name": "f"}])])
def test_a_column_that_begins_after_the_first_rows_is_not_left_out(column: str, value: Any, early: Row) -> None:
    """Auto has seen the first 100 rows alone."""
    question = {"instruction": "q", "output": "a"} if column != "tools" else {"prompt": "q", "answer": "4"}
    sample = [{**question, **early, "id": "1"}] * 100
    late = {**question, column: value, "source": "web"}
    with pytest.raises(RowError, match=f"the first 100 rows have no column {column}") as caught:
        detect.choose("Auto", {}, sample).normalise(late)
    assert caught.value.code == "UnsupportedField"
    assert detect.choose("Auto", {}, sample, [column]).normalise(late)
    assert detect.choose("Auto", {}, sample).normalise({**question, "remark": "r", column: None})


@pytest.mark.parametrize("format", ["Auto", "Chat"])
@pytest.mark.parametrize(
    ("column", "value", "code"),
    [
        *((name, ["a.png"], "NotText") for name in ("image", "images", "audio", "audios", "video", "videos")),
        ("train_detail", [{"begin": 0}], "UnsupportedField"),
    ],
)
def test_content_that_no_format_reads_is_refused(format: str, column: str, value: Any, code: str) -> None:
    row = {**CHAT, column: value}
    with pytest.raises(RowError, match="ignoreColumns") as caught:
        detect.choose(format, {}, [CHAT]).normalise(row)
    assert caught.value.code == code
    assert detect.choose(format, {}, [row], [column]).normalise(row) == CHAT
    assert detect.choose(format, {}, [CHAT]).normalise({**CHAT, column: []}) == CHAT


@pytest.mark.parametrize(
    ("turn", "code"),
    [
        ({"role": "assistant", "content": "a", "train_detail": [{"begin_offset": 0}]}, "UnsupportedField"),
        ({"role": "assistant", "content": "<think>\nx\n</think>\na", "thinking": "hm"}, "UnsupportedField"),
        ({"role": "user", "content": "a", "reasoning_content": "hm"}, "UnsupportedField"),
        ({"role": "assistant", "content": "a", "loss_weight": 0.5}, "WrongWeight"),
        ({"role": "assistant", "content": [{"type": "image_url", "image_url": {"url": "u"}}]}, "NotText"),
        ({"role": "assistant", "content": [{"type": "tool_use", "input": {}}]}, "BrokenToolCall"),
        ({"role": "user", "content": [{"type": "tool_result", "content": {"png": b"1"}}]}, "WrongType"),
        ({"role": "user", "content": [{"type": "tool_use", "name": "f", "input": {}}]}, "BrokenToolCall"),
    ],
)
def test_a_turn_is_refused(turn: Row, code: str) -> None:
    row = {"messages": [TALK[0], turn, *TALK]}
    with pytest.raises(RowError) as caught:
        detect.choose("Chat", {}, [row]).normalise(row)
    assert caught.value.code == code


BESIDE: list[tuple[Row, Row, str]] = [
    ({"messages": TALK}, {"resolved": False}, "format: KTO"),
    (PAIR, {"pred_correct": 1}, "format: KTO"),
    (PAIR, {"options": {"A": "Alpha", "B": "Beta"}}, '"lines(options, …)"'),
    (PAIR, {"context": {"title": ["t"], "sentences": [["Ada was born."]]}}, '"lines(context, …)"'),
    (CHAT, {"chat_template_kwargs": {"enable_thinking": True, "xml_tools": ["{}"]}}, "its xml_tools change prompts"),
    *(
        (PAIR, {name: value}, "format: KTO")
        for name in ("thumbs_up", "feedback", "is_helpful")
        for value in (True, "1")
    ),
    *((PAIR, {"feedback": word}, "pick(feedback, ") for word in ("up", "👎", "Negative", "yes")),
    *((PAIR, {"label": word}, "pick(label, ") for word in ("desirable", "undesirable", "safe", "Unsafe")),
    (PAIR, {"is_safe": False}, "label: is_safe"),
    (PAIR, {"is_harmful": True}, """label: 'pick(is_harmful, {"true": `false`, "false": `true`})'"""),
    (CHAT, {"toxic": 1}, """label: 'pick(toxic, {"1": `false`, "0": `true`})'"""),
    *(
        (PAIR, {name: "other words"}, "format: Preference")
        for name in ("corrected_response", "rejected-answer", "improved_output", "bad_completion", "incorrect answer")
    ),
    *(
        (PAIR, {name: "some words"}, f"lines({name}, …)")
        for name in ("contexts", "evidence", "background", "story", "retrieved", "documents", "persona", "instructions")
    ),
    (PAIR, {"retrieved_contexts": ["some words", "others"]}, "lines(retrieved_contexts, …)"),
    (CHAT, {"documents": [{"title": "t", "text": "some words"}]}, "system: "),
    *((CHAT, {name: "some words"}, "system: ") for name in ("persona", "context", "instructions", "system_prompt")),
    *(
        ({"prompt": "q", "chosen": "good", "rejected": "bad"}, {good: 1, bad: 5.5}, "chosen: rejected")
        for good, bad in (("score_chosen", "score_rejected"), ("chosen-rating", "rejected-rating"))
    ),
]


@pytest.mark.parametrize(("row", "more", "words"), BESIDE, ids=[f"{[*more]} {words}" for _, more, words in BESIDE])
def test_a_column_that_changes_what_is_learned_is_not_passed_over(row: Row, more: Row, words: str) -> None:
    with pytest.raises(DataError, match="ignoreColumns") as caught:
        detect.choose("Auto", {}, [{**row, **more}] * 3)
    assert caught.value.code == "UnreadColumns"
    assert words in caught.value.message
    assert detect.choose("Auto", {}, [{**row, **more}] * 3, [*more]).normalise({**row, **more})


def test_a_column_that_stands_in_what_is_read_says_nothing_more() -> None:
    row = {"messages": [{"role": "system", "content": "You are Ada. Be brief."}, *TALK], "persona": "You are Ada."}
    assert detect.choose("Auto", {}, [row] * 3).normalise(row) == {"messages": row["messages"]}


@pytest.mark.parametrize("name", ["img", "image_path", "image_urls", "media", "pixel_values", "video_url"])
def test_pictures_under_other_names_are_refused(name: str) -> None:
    row = {**PAIR, name: "a.png"}
    with pytest.raises(RowError, match=f"the column {name} is not empty"):
        detect.choose("Auto", {}, [row] * 3).normalise(row)


def test_every_column_and_key_of_a_turn_that_is_not_read_is_named_with_its_share() -> None:
    turns = [TALK[0], {**TALK[1], "cache_control": {"type": "ephemeral"}}]
    rows = [{"messages": turns, "id": "1", **({"lang": "en"} if n % 4 == 0 else {})} for n in range(8)]
    columns, keys = detect.choose("Auto", {}, rows).notes
    assert columns == "Columns that are not read, with their share of the first rows: “id” 100 %, “lang” 25 %."
    assert keys == "Keys of turns that are not read, with their share of the first rows: “cache_control” 100 %."
    assert detect.choose("Auto", {}, [CHAT] * 3).notes == ()


@pytest.mark.parametrize("name", ["rating", "reward", "score", "helpfulness", "helpfulness_score", "sample_weight"])
def test_a_grade_of_answers_is_named(name: str) -> None:
    rows = [{**PAIR, name: grade} for grade in (1, 5, 3)]
    grade, share = detect.choose("Auto", {}, rows).notes
    assert f"The column “{name}” (1 to 5) is not read" in grade
    assert f"“{name}” 100 %" in share


def test_some_pairs_with_the_higher_grade_on_the_rejected_answer_are_counted() -> None:
    pair = {"prompt": "q", "chosen": "good", "rejected": "bad"}
    rows = [{**pair, "score_chosen": n, "score_rejected": 2} for n in (1, 2, 3, 4)]
    assert (
        detect.choose("Auto", {}, rows).notes[0] == "In 1 of the first 4 rows “score_rejected” is above “score_chosen”."
    )


@pytest.mark.parametrize("key", ["reasoning_details", "thoughts", "cot", "tool_plan"])
def test_reasoning_under_an_unknown_key_is_refused(key: str) -> None:
    row = {"messages": [TALK[0], {**TALK[1], key: "hm"}]}
    detected = detect.choose("Auto", {}, [row] * 3)
    with pytest.raises(RowError, match=r"call it reasoning_content") as caught:
        detected.normalise(row)
    assert caught.value.code == "UnsupportedField"
    both = {"messages": [TALK[0], {**TALK[1], key: [{"text": "hm"}], "reasoning": "hm"}]}
    assert detected.normalise(both) == THOUGHT


def test_a_misspelt_role_or_column_is_named_with_what_may_be_meant() -> None:
    row = {"question": "q", "text": "t"}
    with pytest.raises(ConfigError, match="columns promt: no format has this role; did you mean prompt"):
        detect.choose("Auto", {"promt": "question"}, [row])
    with pytest.raises(DataError, match="No row has the column questions; did you mean question"):
        detect.choose("Auto", {"prompt": "questions", "completion": "text"}, [row] * 2)


def test_a_single_row_is_not_taken_for_a_whole_set() -> None:
    with pytest.raises(DataError, match="pre-tokenised rows"):
        detect.choose("Auto", {}, [{"input_ids": [1, 2], "attention_mask": [1, 1]}])
    with pytest.raises(DataError) as caught:
        detect.choose("Auto", {}, [{"input": {"messages": TALK[:1]}, "preferred_output": TALK[1:]}])
    assert "The file is one object" not in caught.value.message


def test_questions_without_an_answer_have_the_mapping_that_reads_them() -> None:
    row = {"context": "c", "question": "q", "answers": {"text": [], "answer_start": []}}
    detected = detect.choose("Auto", {}, [row])
    with pytest.raises(RowError, match=r"for rows with an empty list, write e\.g\. answers") as caught:
        detected.normalise(row)
    expression = str(caught.value).partition("e.g. ")[2].partition("; the row has")[0]
    mapped = detect.choose("PromptCompletion", {"prompt": "question", "completion": expression}, [row], ["context"])
    assert mapped.normalise(row)["completion"] == "I do not know."


def test_a_marker_that_is_left_out_is_named() -> None:
    rows = [{"prompt": "q", "completion": "a<|endoftext|>"}, PAIR]
    detected = detect.choose("Auto", {}, rows)
    assert detected.notes[0].startswith(
        "In 1 of the first 2 rows the completion ends in <|endoftext|>, which is left out"
    )
    assert detected.normalise(rows[0]) == {"prompt": "q", "completion": "a"}


def test_a_conversation_that_is_written_out_as_text_is_named() -> None:
    rows = [{"text": "### Human: q### Assistant: a"}] * 3
    (note,) = detect.choose("Auto", {}, rows).notes
    assert note.startswith(
        "In 3 of the first 3 rows the text seems to be a conversation, with marks such as ### Human:"
    )
    assert detect.choose("Auto", {}, [{"text": "a"}] * 3).notes == ()


@pytest.mark.parametrize(
    ("row", "record"),
    [
        ({"messages": TALK[:1], "ground_truth": "4", "dataset": "gsm8k"}, {"prompt": TALK[:1], "answer": "4"}),
        ({"question": "q", "solution": "s", "answer": "4"}, {"prompt": "q", "answer": "4", "solution": "s"}),
    ],
)
def test_questions_with_a_checked_answer_are_verifiable(row: Row, record: Row) -> None:
    detected = detect.choose("Auto", {}, [row] * 3)
    assert (detected.format.name, detected.normalise(row)) == ("Verifiable", record)
