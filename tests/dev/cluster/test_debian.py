"""Where the Debian packages of the images come from."""

from __future__ import annotations

import pytest

from hone_dev.cluster import images
from hone_dev.tools.console import HoneDevError

pytestmark = pytest.mark.pure
DAY = "20261201T000000Z"
SNAPSHOT = f"http://snapshot.debian.org/archive/debian/{DAY}/"


@pytest.fixture
def use(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("HONE_DEBIAN_MIRROR", raising=False)
    return lambda mirror: monkeypatch.setenv("HONE_DEBIAN_MIRROR", mirror)


def test_a_snapshot_has_the_updates_and_the_security_fixes_of_its_day(use) -> None:
    """By an address alone, mmdebstrap leaves both out, which it has without an address."""
    assert images.debian_sources() == []
    use(SNAPSHOT)
    found = [line.partition("] ")[2] for line in images.debian_sources()]
    assert found == [
        f"{SNAPSHOT} bookworm main",
        f"{SNAPSHOT} bookworm-updates main",
        f"http://snapshot.debian.org/archive/debian-security/{DAY}/ bookworm-security main",
    ]


def test_images_of_other_packages_are_other_images(use) -> None:
    """A release would push what was built from the packages of today, and its provenance would name the snapshot."""
    today = images.reference("operator")
    use(SNAPSHOT)
    assert images.reference("operator") != today
    use("")
    assert images.reference("operator") == today


def test_a_mirror_with_credentials_is_refused(use) -> None:
    use("https://name:password@mirror.example.internal/debian")
    with pytest.raises(HoneDevError, match="has credentials") as refused:
        images.debian_sources()
    assert "password" not in str(refused.value)
