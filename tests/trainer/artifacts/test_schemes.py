"""The trainer reads and writes every scheme that the API accepts for it, and no other."""

import pytest

from hone_api.base.schemes import Use, schemes
from hone_trainer.artifacts.delivery.deliver import DELIVER
from hone_trainer.artifacts.importing.origins import OPEN
from hone_trainer.datasets.sources.sources import SOURCES

pytestmark = pytest.mark.pure


@pytest.mark.parametrize(
    ("use", "handled"),
    [(Use.ROWS, SOURCES), (Use.IMPORT, OPEN), (Use.DELIVERY, DELIVER)],
    ids=lambda each: str(each)[:12],
)
def test_each_scheme_has_its_function(use, handled) -> None:
    assert set(handled) == {scheme.name for scheme in schemes(use)}
