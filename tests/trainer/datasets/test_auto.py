"""Which format Auto takes rows for, and what it says where it cannot tell."""

import pytest

from hone_api.dataset.dataset import Format
from hone_trainer.datasets.formats import detect
from hone_trainer.datasets.readers.rows import RowError
from hone_trainer.errors import ConfigError, DataError

pytestmark = pytest.mark.pure

CALL = {"type": "function", "function": {"name": "weather", "arguments": {"city": "Rome"}}}
ASK = ("user", "hi")
ANSWER = ("assistant", "hello")


def turns(*pairs):
    return [{"role": role, "content": content} for role, content in pairs]


def said(*pairs):
    return [{"from": who, "value": value} for who, value in pairs]


@pytest.mark.parametrize(
    ("row", "columns", "format"),
    [
        ({"messages": turns(ASK, ANSWER)}, {}, "Chat"),
        ({"conversations": said(("human", "hi"), ("gpt", "hello"))}, {}, "ShareGPT"),
        ({"conversations": turns(ASK, ANSWER)}, {"messages": "conversations"}, "Chat"),
        ({"instruction": "i", "input": "", "output": "o", "text": "whole"}, {}, "Alpaca"),
        ({"prompt": "i", "completion": "o"}, {}, "PromptCompletion"),
        ({"prompt": turns(ASK), "completion": turns(ANSWER)}, {}, "PromptCompletion"),
        ({"question": "q", "oracle": "o", "distractors": ["d"], "answer": "a"}, {}, "RAFT"),
        ({"messages": [*turns(ASK), {"role": "assistant", "tool_calls": [CALL]}]}, {}, "Chat"),
        ({"question": "i", "answer": "o"}, {"prompt": "question", "completion": "answer"}, "PromptCompletion"),
        ({"text": "t"}, {}, "Text"),
        ({"content": "t"}, {"text": "content"}, "Text"),
        ({"instruction": "i", "output": "o", "text": "whole"}, {"text": "text"}, "Text"),
    ],
)
def test_auto_recognises_and_says_why(row, columns, format):
    found = detect.choose(Format.AUTO, columns, [row] * 3)
    assert found.format.name == format
    assert str(found).startswith(f"{format} (Auto: the first 3 rows have {found.format.why}")


def test_auto_names_the_columns_that_are_not_read():
    found = detect.choose(Format.AUTO, {}, [{"text": "t", "source": "c"}])
    assert str(found) == "Text (Auto: the first row has a text; not read: source)"


def test_auto_looks_past_a_few_broken_rows():
    sample = [{"prompt": "a", "completion": "b"}] * 8 + [{"prompt": "a"}, {"completion": 3}]
    assert detect.choose(Format.AUTO, {}, sample).format.name == "PromptCompletion"


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"input": "a", "output": "b"}, "columns input, output. Perhaps spec.columns {prompt: input, compl"),
        ({"x": "a", "y": "b"}, "columns x, y. Map them in spec.columns to those of a format: "),
        ({"data": [{"prompt": "a"}]}, "The file is one object: write the list in 'data' itself"),
        ({"version": 1, "data": [{"prompt": "a"}]}, "The file is one object: write the list in 'data' itself"),
        ({"prompt": ["a", "b"], "completion": ["c", "d"]}, "a list for each column: write one object for each row"),
        ({"0": {"prompt": "a"}, "1": {"prompt": "b"}}, "the rows as its values: write them as a list"),
        ({"What is 1?": "What is 2?", "One": "Two"}, "add a line with the names of the columns"),
        ({"One": "Two", "What is 1": "What is 2"}, "add a line with the names of the columns"),
        ({"prompt;completion": "a;b"}, "separated by ';'"),
        ({"text": "t", "category": "c"}, "{prompt: text, completion: category} is meant, or format Text"),
        (
            {"question": "q", "oracle_context": "o", "context": {"sentences": [["o"]]}, "cot_answer": "a"},
            "{question: question, oracle: oracle_context, distractors: context, answer: cot_answer}",
        ),
        ({}, "the columns none"),
        ({"Question": "a", "Answer": "b"}, "Perhaps spec.columns {prompt: Question, completion: Answer} is meant"),
        ({"Prompt": "a", " Completion": "b", "Id": "1"}, '{prompt: Prompt, completion: " Completion"} is meant'),
        ({"Text": "a"}, "Perhaps spec.columns {text: Text} is meant"),
        ({"Instruction": "a", "Context": "c", "Response": "b"}, "Map them in spec.columns"),
    ],
)
def test_auto_does_not_guess_but_says_what_may_be_meant(row, words):
    with pytest.raises(DataError) as caught:
        detect.choose(Format.AUTO, {}, [row])
    assert caught.value.code == "UnknownFormat"
    assert words in caught.value.message


def test_auto_leaves_it_to_the_rows_to_say_what_is_wrong_in_the_right_columns():
    found = detect.choose(Format.AUTO, {}, [{"prompt": 1, "completion": 2}])
    assert str(found) == "PromptCompletion (Auto: the first row has the columns completion, prompt)"
    with pytest.raises(RowError, match="completion is a number"):
        found.format.normalise({"prompt": 1, "completion": 2}, {})


def test_a_role_that_the_format_does_not_have_is_refused():
    with pytest.raises(ConfigError, match="columns chosen, question: format PromptCompletion has the roles prompt"):
        detect.choose(Format.PROMPT_COMPLETION, {"question": "q", "chosen": "a"}, [])
