"""Reports as HTML pages: one file that loads nothing. Rows and answers are untrusted input: everything is escaped, and
a content security policy forbids scripts.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jinja2 import Template


def digits(value: float | str, count: int = 4, *, sign: bool = False) -> str:
    """A number with `count` significant digits: 3.935, 0.002100, 12,400, −0.5000. Infinity and NaN become words.

    Args:
        sign: whether a number above 0 gets a plus sign.
    """
    number = float(value)
    if not math.isfinite(number):
        return "not a number" if math.isnan(number) else "infinite"
    plus = "+" if sign else ""
    if abs(number) >= 10**count:
        text = f"{float(f'{number:.{count}g}'):{plus},.0f}"
    elif number and abs(number) < 1e-4:
        text = f"{number:{plus}.{count - 1}e}"
    else:
        text = f"{number:{plus}#.{count}g}".rstrip(".") if number else "0"
    return text.replace("-", "\N{MINUS SIGN}", 1) if number < 0 else text


def template(file: Path) -> Template:
    """The page's template. The common style is its global `style`."""
    from jinja2 import Environment
    from markupsafe import Markup

    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.filters["digits"] = digits
    environment.filters["number"] = lambda value: f"{value:,}"
    environment.filters["pairs"] = lambda entries, label, count: [(entry[label], entry[count]) for entry in entries]
    environment.globals["style"] = Markup(Path(__file__).with_name("html.css").read_text(encoding="utf-8"))
    return environment.from_string(file.read_text(encoding="utf-8"))
