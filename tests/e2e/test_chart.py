"""The installed chart, checked by its own `helm test`."""

import pytest

from hone_dev.demo.command import RELEASE, SYSTEM

pytestmark = pytest.mark.e2e


def test_helm_test_passes(hone) -> None:
    said = hone.helm("test", RELEASE, "--namespace", SYSTEM, "--logs", "--timeout", "10m")
    assert said.count("ok      ") == 4
