"""Variables whose values are keys of Secrets: no log and no message shows them."""

import pytest

from hone_trainer import secrets
from hone_trainer.secrets import remember_variables, scrub

pytestmark = pytest.mark.pure


def test_the_value_of_a_variable_from_a_secret_is_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HONE_SECRET_VARIABLES", "PROXY,ABSENT")
    monkeypatch.setenv("PROXY", "quiet meadow-of-clover")
    monkeypatch.setenv("OTHER", "a plain-visible value")
    remember_variables()
    assert scrub("no answer from meadow-of-clover") == "no answer from ***"
    assert scrub("a plain-visible value") == "a plain-visible value"


def test_a_value_that_another_thread_remembers_meanwhile_ends_no_message(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(secrets, "_known", {"first-password", "second-password"})
    own = secrets._left_of

    def interrupted(value: str) -> str:
        secrets.remember(f"{value}-rotated")
        return own(value)

    monkeypatch.setattr(secrets, "_left_of", interrupted)
    assert scrub("first-password, second-password") == "***, ***"
