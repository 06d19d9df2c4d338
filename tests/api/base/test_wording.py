"""Numbers agree with their words."""

import pytest

from hone_api.base.wording import are, counted, listed

pytestmark = pytest.mark.pure


@pytest.mark.parametrize(("number", "words"), [(0, "0 rows are"), (1, "1 row is"), (1289, "1,289 rows are")])
def test_a_word_agrees_with_its_number(number: int, words: str) -> None:
    assert f"{counted(number, 'row')} {are(number)}" == counted(number, "row is", "rows are") == words


@pytest.mark.parametrize("words", [[], ["Number"], ["Number", "Math"], ["Number", "Math", "ExactMatch"]])
def test_a_list_has_one_and(words: list[str]) -> None:
    assert listed(words) == ["", "Number", "Number and Math", "Number, Math and ExactMatch"][len(words)]
