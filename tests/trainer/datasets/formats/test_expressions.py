"""Column expressions: what they give, and how one that cannot be is refused."""

from __future__ import annotations

from typing import Any

import pytest

from hone_trainer.datasets.formats import detect, expressions
from hone_trainer.datasets.readers.rows import RowError
from hone_trainer.errors import ConfigError

pytestmark = pytest.mark.pure
Row = dict[str, Any]


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("a", "A"),
        ("a.b", "a column with a dot in its name"),
        ("nested.list[0].text", "t"),
        ("'a constant'", "a constant"),
        ("lines(a, empty, absent, nested.list[].text)", "A\n\nt"),
        ("lines('Summarise:', a)", "Summarise:\n\nA"),
        ("lines(absent[].text)", None),
        ("lines(absent, a)", "A"),
        ("json(text)", [1]),
        (
            "turns[].{role: who == 'agent' && 'assistant' || 'user', content: said}",
            [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}],
        ),
        ('name(number, `["no", "yes"]`)', "yes"),
        ('name(absent, `["no"]`)', None),
        ("absent.b", None),
        ("no such column", None),
    ],
)
def test_a_column_expression_gives(expression: str, value: Any) -> None:
    nested = {"list": [{"text": "t"}]}
    row = {
        "a": "A",
        "a.b": "a column with a dot in its name",
        "empty": " ",
        "nested": nested,
        "text": "[1]",
        "turns": [{"who": "customer", "said": "hi"}, {"who": "agent", "said": "hello"}],
        "number": 1,
    }
    assert expressions.evaluate(expression, row) == value


@pytest.mark.attack("data files")
@pytest.mark.parametrize("expression", ["a[", "lines(", "((((", "(" * 500, "a | | b"])
def test_an_expression_that_cannot_be_is_refused_with_its_role(expression: str) -> None:
    with pytest.raises(ConfigError, match=r"columns\.prompt: .* is neither a column nor an expression"):
        detect.choose("PromptCompletion", {"prompt": expression}, [{"a": 1}])


@pytest.mark.attack("data files")
@pytest.mark.parametrize(
    ("expression", "code"),
    [
        ("lines(number)", "WrongType"),
        ("lines(completion, number)", "WrongType"),
        ("json(text)", "BrokenJson"),
        ("unknown(text)", "WrongType"),
    ],
)
def test_a_value_that_an_expression_cannot_take_rejects_the_row(expression: str, code: str) -> None:
    row = {"number": 1, "text": "[", "completion": "a"}
    with pytest.raises(RowError) as caught:
        detect.choose("PromptCompletion", {"prompt": expression}, [row]).normalise(row)
    assert caught.value.code == code
