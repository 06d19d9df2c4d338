"""Files of the embedded cluster's authority."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from hone_dev.cluster.pki import write_private

pytestmark = pytest.mark.pure


def test_who_reads_a_private_file_that_is_written_again_finds_all_of_it(tmp_path: Path) -> None:
    """Kueue's certificate is written at each look whether Kueue is ready."""
    path, content = tmp_path / "tls.key", b"x" * 1675
    write_private(path, content)
    with ThreadPoolExecutor(1) as other:
        writing = other.submit(lambda: [write_private(path, content) for _ in range(500)])
        while not writing.done():
            assert path.read_bytes() == content
    assert [*tmp_path.iterdir()] == [path]
    assert path.stat().st_mode & 0o777 == 0o600
