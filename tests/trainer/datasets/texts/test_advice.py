"""Advice: the sentence that fits, and none that does not."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from support.rows import counting

from hone_api.contract.privacy import hide_rows
from hone_api.contract.report import DatasetResult
from hone_api.dataset.dataset_status import LanguageRows, SplitRows
from hone_trainer.datasets.readers.rows import RowError
from hone_trainer.datasets.texts.advice import advice
from hone_trainer.datasets.texts.language import share_in, shares
from hone_trainer.datasets.texts.statistics import CONTEXTS, LengthHistogram, check_length, length_of

pytestmark = pytest.mark.trainer


def chat(*turns: tuple[str, str], **more: Any) -> dict[str, Any]:
    return {"messages": [{"role": role, "content": content} for role, content in turns], **more}


def advice_on(records: list[dict[str, Any]], format: str = "Chat", **fields: Any) -> str:
    """The advice on these records, a sentence a line."""
    with counting.counts(records) as counts:
        profile, lengths = counts.profile(), counts.lengths()
    result = DatasetResult(rows=len(records), tokens=lengths.statistics(), **fields)
    return "\n".join(advice(result, profile, format))


def texts(count: int, size: int = 40) -> list[dict[str, Any]]:
    return [{"prompt": "q" * size, "completion": f"{i} " + "a" * size} for i in range(count)]


@pytest.mark.parametrize(
    ("rows", "format", "words"),
    [
        (20, "Alpaca", "20 rows are very few"),
        (49, "Chat", "49 rows are very few"),
        (50, "Chat", "50 rows can teach a tone or a format; 500 to 1,000"),
        (499, "ShareGPT", "5,000 to 20,000 for broad instruction following. Quality before quantity."),
        (500, "Chat", "500 rows suit behaviour and format; broad instruction following takes 5,000 to 20,000."),
        (5000, "Chat", "5,000 rows suit broad instruction following. For behaviour or format alone, the best 1,000"),
        (999, "Preference", "999 rows are few for preferences"),
        (499, "Verifiable", "499 rows are few for method GRPO"),
    ],
)
def test_how_many_rows_for_what(rows: int, format: str, words: str) -> None:
    assert words in advice_on(texts(rows), format)


def test_enough_is_not_called_few() -> None:
    assert "few" not in advice_on(texts(1000), "Preference") + advice_on(texts(500), "Verifiable") + advice_on(
        texts(600)
    )


def test_documents_are_counted_in_tokens() -> None:
    assert "About 10,000 tokens of text are few for method DAPT" in advice_on([{"text": "x" * 4000}] * 10, "Text")
    assert "few" not in advice_on([{"text": "x" * 400_000}] * 10, "Text")


def test_lengths_against_contexts() -> None:
    short = texts(100, size=100)
    assert "An epoch has about 5,100 tokens; half of the rows have up to 51, 95 % up to 51." in advice_on(short)
    assert "Every row fits into training.maxLength 512." in advice_on(short)
    one_long = [*texts(199, 100), {"prompt": "q", "completion": "a" * 12_000}]
    assert (
        "With training.maxLength 512 (and a base model whose context is as long) 1 row (0.5%) is too long"
        in advice_on(one_long)
    )
    half_long = [*texts(50, 100), *[{"prompt": "q", "completion": "a" * 12_000}] * 50]
    assert "Every row fits into training.maxLength 4096." in advice_on(half_long)
    giant = [{"prompt": "q", "completion": "a" * 400_000}] * 3
    assert "3 rows (100.0%) are longer than 32,768 tokens: split them" in advice_on(giant)


def test_epochs_of_millions() -> None:
    assert "An epoch has about 1.5 million tokens" in advice_on(texts(1500, size=2000))


def test_repeats() -> None:
    assert "6 % of the rows repeat another one exactly" in advice_on(texts(100), duplicates=6)
    assert "repeat" not in advice_on(texts(100), duplicates=5)


def test_classes_out_of_balance() -> None:
    rows = [{"prompt": f"q{i}", "completion": "yes" if i % 20 else "no"} for i in range(400)]
    assert "The answers are of 2 kinds, and unbalanced: “yes” in 380 rows, the rarest in 20." in advice_on(rows)
    even = [{"prompt": f"q{i}", "completion": "yes" if i % 2 else "no"} for i in range(400)]
    assert "unbalanced" not in advice_on(even)


def test_one_answer_to_many_questions() -> None:
    rows = [*texts(70), *[{"prompt": f"q{i}", "completion": "I cannot help with that."} for i in range(30)]]
    assert "30 % of the rows have the same answer, “I cannot help with that.”" in advice_on(rows)
    assert "same answer" not in advice_on(texts(100))


@pytest.mark.parametrize("answer", ["Ada Lovelace", "”Ada Lovelace”", 'it\'s “Ada Lovelace” "she" said'])
def test_advice_quotes_no_row_where_rows_are_hidden(answer: str) -> None:
    rows = [{"prompt": f"q{i}", "completion": answer if i % 20 else "no"} for i in range(400)]
    for records in (rows, [*texts(70), *rows[:30]]):
        result = DatasetResult(rows=len(records), advice=advice_on(records).split("\n"))
        before = list(result.advice)
        assert "Ada" in "".join(before)
        hide_rows(result)
        assert "Ada" not in "".join(result.advice)
        assert sum(a != b for a, b in zip(before, result.advice, strict=True)) == 1


def test_conversations() -> None:
    plain = chat(("user", "a"), ("assistant", "b"))
    twice = chat(("user", "a"), ("user", "a"), ("assistant", "b"))
    system = chat(("system", "s"), ("user", "a"), ("assistant", "b"))
    tools = chat(("user", "a"), ("assistant", "b"), tools=[{"type": "function", "function": {"name": "f"}}])
    named = {"messages": [{"role": "user", "content": "a", "name": "bob"}, {"role": "assistant", "content": "b"}]}
    said = advice_on([plain, twice, system, system, tools, named])
    assert "In 1 row one role speaks twice in a row" in said
    assert "2 of 6 rows have a system turn" in said
    assert "1 row has tools: the base model's chat template must know them" in said
    assert "1 row names who speaks (name)" in said
    quiet = advice_on([plain] * 6)
    assert not any(words in quiet for words in ("twice", "system turn", "tools", "name who"))


def pairs(count: int, better: int, worse: int) -> list[dict[str, Any]]:
    return [
        {"prompt": f"question {i}", "chosen": f"{i} " + "a" * better, "rejected": f"{i} " + "b" * worse}
        for i in range(count)
    ]


def test_one_question_with_several_answers() -> None:
    rows = [{"prompt": f"What is {i}?", "completion": f"It is {i}."} for i in range(96)]
    twice = [{"prompt": f"What is {i % 2}?", "completion": f"It is {i}."} for i in range(4)]
    assert "2 questions have several answers (6 rows)" in advice_on([*rows, *twice])
    assert "several answers" not in advice_on([*rows, {"prompt": "what is  1?", "completion": "it is 1."}])
    few = [{"prompt": f"q{i}", "completion": "a"} for i in range(300)]
    assert "several answers" not in advice_on([*few, {"prompt": "q0", "completion": "b"}]), "2 of 301"
    chats = [chat(("user", "a"), ("assistant", "b"), ("user", "c"), ("assistant", str(i))) for i in range(3)]
    assert "1 question has several answers (3 rows)" in advice_on(chats)
    other = [chat(("user", str(i)), ("assistant", "b"), ("user", "c"), ("assistant", str(i))) for i in range(3)]
    tools = [{**row, "tools": [{"name": f"tool {i}"}]} for i, row in enumerate(chats)]
    assert "several answers" not in advice_on(tools), "other tools, another answer"
    assert "several answers" not in advice_on(other), "what was said before belongs to the question"


def test_verdicts_that_contradict_each_other() -> None:
    both_ways = [{"prompt": "q", "chosen": "a", "rejected": "b"}, {"prompt": "q", "chosen": "b", "rejected": "a"}]
    assert "1 pair of answers is given in both orders" in advice_on(both_ways, "Preference")
    several = [{"prompt": "q", "chosen": "a", "rejected": "b"}, {"prompt": "q", "chosen": "a", "rejected": "c"}]
    assert "orders" not in advice_on(several, "Preference")
    labels = [{"prompt": "q", "completion": "a", "label": label} for label in (True, False)]
    assert "1 answer is labelled both true and false (2 rows)" in advice_on(labels, "KTO")
    assert "labelled both" not in advice_on([labels[0]] * 2, "KTO")


def test_chosen_answers_that_are_longer() -> None:
    longer = "In 80 % of the pairs the chosen answer is the longer one (mean 84 characters, rejected 28)"
    assert longer in advice_on([*pairs(80, 100, 10), *pairs(20, 10, 90)], "Preference")
    assert "chosen answer is the shorter one" in advice_on(pairs(40, 10, 90), "Preference")
    assert "the chosen answer is" not in advice_on([*pairs(70, 100, 10), *pairs(30, 10, 90)], "Preference")
    assert "the chosen answer is" not in advice_on(pairs(19, 100, 10), "Preference"), "too few to say so"
    turns = [
        {side: [{"role": "assistant", "content": text}] for side, text in row.items() if side != "prompt"}
        | {"prompt": [{"role": "user", "content": row["prompt"]}]}
        for row in pairs(40, 100, 10)
    ]
    assert "the chosen answer is the longer one (mean 102" in advice_on(turns, "Preference")


def test_good_answers_that_are_longer() -> None:
    rows = [{"prompt": f"q{i}", "completion": "a" * (90 if i % 2 else 30), "label": bool(i % 2)} for i in range(60)]
    assert "Good answers are longer than bad ones (mean 90 characters against 30)" in advice_on(rows, "KTO")
    even = [{**row, "completion": f"{i} is even"} for i, row in enumerate(rows)]
    assert "Good answers" not in advice_on(even, "KTO")


def test_answers_that_differ_in_form_alone() -> None:
    rows = [{"prompt": "q", "chosen": "Yes, it is.", "rejected": "yes,  it is. "}, *pairs(1, 5, 5)]
    assert "In 1 pair chosen and rejected differ in case or white space alone" in advice_on(rows, "Preference")
    assert "white space alone" not in advice_on(pairs(9, 5, 5), "Preference")


def test_conversations_that_do_not_end_with_an_answer() -> None:
    rows = [chat(("user", "a"), ("assistant", "b"), ("user", last)) for last in "xyz"]
    assert "3 conversations do not end with the assistant" in advice_on(rows)
    assert "do not end" not in advice_on([chat(("user", "a"), ("assistant", "b"))])


def test_a_system_turn_in_the_middle() -> None:
    late = chat(("user", "a"), ("assistant", "b"), ("system", "s"), ("user", "c"), ("assistant", "d"))
    first = chat(("system", "s"), ("user", "c"), ("assistant", "d"))
    assert "In 1 row a system turn comes after the first turn" in advice_on([late, first])
    assert "after the first turn" not in advice_on([first])
    assert "In 1 row a system turn" in advice_on(
        [{"prompt": late["messages"][:4], "chosen": "a", "rejected": "b"}], "Preference"
    )


@pytest.mark.parametrize(
    "text",
    ["<|im_start|>user", "[INST] hi [/INST]", "<<SYS>>", "</s>", "<start_of_turn>model", "<｜User｜>", "<|eot_id|>"],
)
def test_control_tokens(text: str) -> None:
    assert "1 row has a control token of chat templates" in advice_on([chat(("user", text), ("assistant", "b"))])
    assert "control token" not in advice_on([{"text": text}], "Text"), "in documents they are plain characters"


@pytest.mark.parametrize("text", ["a <b> c", "x = a[INSTANCE]", "<|", "cat a.txt <|> b", "List<String>", "<samp>"])
def test_what_is_not_a_control_token(text: str) -> None:
    assert "control token" not in advice_on([chat(("user", text), ("assistant", "b"))])


@pytest.mark.parametrize("text", ["\u200b", "\ufeff", " \u200b\n\u2060", "\u3164", "\u2800"])
def test_answers_that_show_nothing(text: str) -> None:
    for row in (chat(("user", "a"), ("assistant", text)), {"prompt": "a", "completion": text}):
        assert "1 row has an answer of characters that show nothing" in advice_on([row])
    assert "show nothing" not in advice_on([chat(("user", text), ("assistant", "\u200bb"))])


@pytest.mark.parametrize("text", ["nan", "NaN", "<NA>", "NaT", "Translate\n\nnan"])
def test_empty_cells_that_pandas_wrote_as_text(text: str) -> None:
    for row in ({"prompt": text, "completion": "a"}, {"prompt": "a", "completion": text}):
        assert "1 row has a text that is nan" in advice_on([row])
    assert "pandas" not in advice_on([{"prompt": "Who is nan", "completion": "My nan\n\nis my Oman"}])


def test_a_call_of_a_tool_is_an_answer_that_shows() -> None:
    call = {"type": "function", "function": {"name": "f", "arguments": {"city": "Köln"}}}
    row = chat(("user", "Wie wird das Wetter in Köln?"))
    row["messages"].append({"role": "assistant", "content": "", "tool_calls": [call]})
    assert "show nothing" not in advice_on([row])


def test_answers_of_several_tools_are_no_role_twice() -> None:
    row = chat(("user", "a"), ("assistant", "b"), ("tool", "1"), ("tool", "2"), ("assistant", "c"))
    assert "twice" not in advice_on([row])


def test_few_validation_rows() -> None:
    assert "5 validation rows give a rough held-out loss only" in advice_on(
        texts(100), splits=[SplitRows(name="train", rows=95), SplitRows(name="validation", rows=5)]
    )
    assert "rough" not in advice_on(texts(100), splits=[SplitRows(name="validation", rows=20)])
    assert "rough" not in advice_on(texts(100), splits=[SplitRows(name="train", rows=100)])


def test_several_languages() -> None:
    mixed = [LanguageRows(language=name, rows=n, share=f"{n}%") for name, n in (("en", 80), ("de", 15), ("other", 5))]
    assert "Several languages: en 80%, de 15%." in advice_on(texts(10), languages=mixed)
    assert "Several" not in advice_on(texts(10), languages=[LanguageRows(language="en", rows=99, share="99%")])


def test_nothing_is_said_of_no_rows() -> None:
    assert advice_on([]) == ""


def test_lengths() -> None:
    assert length_of({"text": "abcde"}) == 2
    assert length_of({"text": "é" * 4}) == 2, "bytes, not characters"
    assert length_of({"text": ""}) == 1
    assert length_of(chat(("user", "abcd"), ("assistant", "abcd"))) == 2
    calls = [{"type": "function", "function": {"name": "abcd", "arguments": {"k": "abcd"}}}]
    assert length_of({"messages": [{"role": "assistant", "content": "", "tool_calls": calls}]}) >= 2
    check_length([("text", "abcd")], 1)
    check_length([("text", "abcde" * 99)], None)
    with pytest.raises(RowError, match=r"about 2 tokens, checks\.maxTokens is 1"):
        check_length([("text", "abcde")], 1)


def test_the_histogram_has_every_row_once() -> None:
    lengths = LengthHistogram(Counter((1, 8, 9, 16, 17, 1000)))
    assert lengths.histogram() == [(8, 2), (16, 2), (32, 1), (64, 0), (128, 0), (256, 0), (512, 0), (1024, 1)]
    assert LengthHistogram().histogram() == []
    statistics = lengths.statistics()
    assert statistics is not None
    assert [entry.rows for entry in statistics.over] == [1, 0, 0, 0, 0, 0]
    assert [entry.context for entry in statistics.over] == list(CONTEXTS)


def test_shares_of_languages() -> None:
    rows = Counter({"en": 50, "de": 30, "unknown": 20})
    assert [(e.language, e.rows, e.share) for e in shares(rows)] == [
        ("en", 50, "50.0%"),
        ("de", 30, "30.0%"),
        ("unknown", 20, "20.0%"),
    ]
    assert share_in(rows, ["en"]) == 50 / 80, "of those that can be told"
    assert share_in(rows, ["en", "de", "en"]) == 1
    assert share_in(Counter({"unknown": 3}), ["en"]) is None
    many = Counter({chr(ord("a") + i) * 2: 20 - i for i in range(12)})
    assert [e.language for e in shares(many)][-1] == "other"
    assert sum(e.rows for e in shares(many)) == many.total()
    assert shares(Counter()) == []


CALLS = {
    "a call has no result before the next turn": [["a"], [], ["b"], ["b"]],
    "a call has two results": [["a"], ["a", "a"]],
    "two calls have one id": [["a", "a"], ["a"]],
}


def calling(*ids: list[str], name: str = "weather", **arguments: Any) -> list[dict[str, Any]]:
    """Turns of a conversation: ids of calls, ids of their results, and so on."""
    turns: list[dict[str, Any]] = [{"role": "user", "content": "warm?"}]
    for at, several in enumerate(ids):
        calls = [
            {"id": each, "type": "function", "function": {"name": name, "arguments": arguments}} for each in several
        ]
        results = [{"role": "tool", "content": "20 C", "tool_call_id": each} for each in several]
        turns += results if at % 2 else [{"role": "assistant", "content": "", "tool_calls": calls}]
    return turns


def tool(name: str = "weather", **parameters: Any) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, "parameters": parameters}}


CITY = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}


@pytest.mark.parametrize(
    ("turns", "tools", "fault"),
    [
        *((calling(*ids), [], fault) for fault, ids in CALLS.items()),
        (calling(["a"], name="get weather!"), [], "a tool's name has other characters"),
        (calling(["a"]), [tool(**CITY)], "do not fit the tool's own schema"),
        (calling(["a"], city=3), [tool(**CITY)], "do not fit the tool's own schema"),
        (calling(["a"]), [tool(type="objekt", properties=3)], "are not a JSON Schema"),
        (calling(["a"]), [tool(), tool()], "a tool is given twice"),
    ],
)
def test_calls_that_an_api_would_refuse(turns: list[dict[str, Any]], tools: list[dict[str, Any]], fault: str) -> None:
    record = {"messages": turns, **({"tools": tools} if tools else {})}
    preference = {"prompt": turns[:1], "chosen": turns[1:], "rejected": [{"role": "assistant", "content": "no"}]}
    preference |= {"tools": tools} if tools else {}
    for row in (record, preference):
        [sentence] = [line for line in advice_on([row, row]).splitlines() if "may refuse, and the model" in line]
        assert sentence.count("(2)") == 1, "this fault alone, in both rows"
        assert fault in sentence


@pytest.mark.parametrize(
    "row",
    [
        {"messages": calling(["a", "b"], ["b", "a"], ["c"], city="Rome"), "tools": [tool(**CITY)]},
        {"messages": calling(["a"], city="Rome")},
        {"messages": calling(["a"]), "tools": [tool(type="object", properties={"x": {"pattern": "(a+)+$"}})]},
        {"messages": calling(["a"]), "tools": [tool(**{"$ref": "http://127.0.0.1:9/schema"})]},
        {
            "prompt": [{"role": "user", "content": "warm?"}],
            "chosen": calling(["a"], city="Rome")[1:],
            "rejected": calling(["a"], city="Bonn")[1:],
        },
    ],
)
def test_calls_that_an_api_takes(row: dict[str, Any]) -> None:
    assert "may refuse, and the model" not in advice_on([row] * 2)
