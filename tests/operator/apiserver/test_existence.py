"""What was seen to exist is believed for a while, and then forgotten."""

from typing import Any

import pytest

from hone_operator.apiserver import existence
from hone_operator.apiserver.existence import Existence

pytestmark = pytest.mark.pure


class Claims:
    """Counts how often it is asked; only `there` exists."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    async def get(self, kind: str, namespace: str, name: str) -> Any:
        self.asked.append(name)
        return {} if name.startswith("there") else None


async def test_what_was_there_is_believed_and_what_was_missing_is_not(monkeypatch: Any) -> None:
    claims, now = Claims(), [100.0]
    monkeypatch.setattr(existence.time, "monotonic", lambda: now[0])
    known = Existence(claims)
    assert await known.of_claim("team", "there")
    assert await known.of_claim("team", "there")
    assert not await known.of_claim("team", "missing")
    assert not await known.of_claim("team", "missing")
    assert claims.asked == ["there", "missing", "missing"]
    now[0] += existence.BELIEVED_SECONDS
    assert await known.of_claim("team", "there")
    assert claims.asked[-1] == "there"


@pytest.mark.attack("objects at the API server")
async def test_names_of_a_million_claims_are_not_kept(monkeypatch: Any) -> None:
    now = [100.0]
    monkeypatch.setattr(existence.time, "monotonic", lambda: now[0])
    known = Existence(Claims())
    for number in range(existence.REMEMBERED + 100):
        await known.of_claim("team", f"there{number}")
    assert len(known) <= existence.REMEMBERED + 1
    now[0] += existence.BELIEVED_SECONDS
    await known.of_claim("team", "there")
    assert len(known) == 1
