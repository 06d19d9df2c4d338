"""What a model is shown of a document with HTML in it."""

from __future__ import annotations

import time

import pytest

from hone_trainer.datasets.synthesis import markup

pytestmark = pytest.mark.pure


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("List<T>, a < b > c and <T>", None),
        ("```html\n<p>x</p>\n```", None),
        ("<p>One <b>bold</b> word.<!-- <b>hidden</b> --></p><div>Two<br/>lines</div>", "One bold word.\n\nTwo\nlines"),
        ("a <b>&lt;td&gt;</b> `&lt;` b", "a <td> `&lt;` b"),
        ("<ul><li>a</li><li>b</li></ul><script>alert('<p>')</script>", "a\nb"),
        ("<table><tr><td>1<table><tr><td>2</td><td>3</td></tr></table></td><td>4</td></tr></table>", "1 2 | 3 | 4"),
        ("<table><caption>All</caption><tr><td>open", "All\n | open"),
    ],
)
def test_tags_of_html_are_what_they_show(text: str, shown: str | None) -> None:
    assert markup.shown(text) == (text if shown is None else shown)


@pytest.mark.attack("data files")
@pytest.mark.parametrize("mark", ["<table>", "<td ", "<!--", "<script>", "`", "```\n", "</table>", "<p a='", "<b>"])
def test_the_time_of_tags_grows_with_the_text(mark: str) -> None:
    begin = time.process_time()
    markup.shown(mark * (400_000 // len(mark)) + "<b>")
    assert time.process_time() - begin < 5
