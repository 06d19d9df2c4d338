"""A clock that stands, for chat templates: transformers' own and Hone's."""

from __future__ import annotations

from datetime import date, datetime, tzinfo

import pytest
from transformers.utils import chat_template_utils

LLAMA_3 = """{{- "<|endoftext|>" }}{%- if not date_string is defined %}{%- if strftime_now is defined %}\
{%- set date_string = strftime_now("%d %b %Y") %}{%- else %}{%- set date_string = "26 Jul 2024" %}{%- endif %}\
{%- endif %}{{- "<|im_start|>system\nCutting Knowledge Date: December 2023\nToday Date: " + date_string + \
"<|im_end|>" }}{%- for message in messages %}{{- '<|im_start|>' + message['role'] + '\n' + message['content'] + \
'<|im_end|>\n' }}{%- endfor %}{%- if add_generation_prompt %}{{- '<|im_start|>assistant\n' }}{%- endif %}"""
"""The head of Llama 3.2's template, with the marks of the tiny tokenizer."""


def stands_at(patch: pytest.MonkeyPatch, day: str) -> None:
    """From now on it is noon of `day`, wherever a template or a run asks for the date."""
    from hone_trainer.encoding import rendering
    from hone_trainer.run import template_date

    class Clock(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> datetime:
            return datetime.fromisoformat(f"{day}T12:00:00")

    class Calendar(date):
        @classmethod
        def today(cls) -> date:
            return date.fromisoformat(day)

    patch.setattr(chat_template_utils, "datetime", Clock)
    patch.setattr(rendering, "datetime", Clock)
    patch.setattr(template_date, "date", Calendar)
