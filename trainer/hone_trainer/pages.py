"""Reports as HTML pages: one file that loads nothing. Rows and answers are nobody's friend: all is escaped, and a
content security policy forbids scripts besides.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jinja2 import Template


def template(file: Path) -> Template:
    """The page's template, which finds the common style in `style`."""
    from jinja2 import Environment
    from markupsafe import Markup

    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.filters["number"] = lambda value: f"{value:,}"
    environment.filters["pairs"] = lambda entries, label, count: [(entry[label], entry[count]) for entry in entries]
    environment.globals["style"] = Markup(Path(__file__).with_name("pages.css").read_text(encoding="utf-8"))
    return environment.from_string(file.read_text(encoding="utf-8"))
