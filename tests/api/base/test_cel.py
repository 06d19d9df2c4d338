"""What of CEL is evaluated, and that the rest is refused; `tests/api/combinations` compares it with the API server."""

from typing import Any

import pytest

from hone_api.base.cel import NotSupportedError, evaluate

pytestmark = pytest.mark.pure


@pytest.mark.parametrize(
    ("rule", "value", "result"),
    [
        ("self.x == true", {"x": True}, True),
        ("self.x == false || self.x", {"x": False}, True),
        ("self.all(x, x.all(y, y != self[0][0]))", [[1], [2]], False),
        ("type(self) == string", "a", True),
        ("self.matches('true')", "true", True),
    ],
)
def test_what_is_supported(rule: str, value: Any, result: bool) -> None:
    assert evaluate(rule, value) is result


@pytest.mark.parametrize(
    "rule",
    [
        *("self / 2 == 3", "self // 2 == 3", "self ** 2 == 9", "self is 1", "self & 1 == 1", "self not in [1]"),
        *("null == self", "None == self", "True == self", "other == self", "x == 1", "__builtins__ == self"),
        *("self.all(x, x > 0) && x > 0", "self ? 1 : 2", "f(self)", "self == b'a'", "self ==", "{'a': 1} == self"),
        "has(other.a)",
    ],
)
def test_the_rest_is_refused(rule: str) -> None:
    with pytest.raises(NotSupportedError):
        evaluate(rule, [1])
