"""Where no cluster is configured, `hone` says so in one line."""

from pathlib import Path

import pytest

from hone_cli.errors import CommandError
from hone_cli.kube import Kube

pytestmark = pytest.mark.pure


def test_a_missing_kubeconfig_is_one_sentence_with_the_way_out(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", str(tmp_path / "absent"))
    with pytest.raises(CommandError) as refused:
        Kube.load(None, None)
    assert str(refused.value).endswith("found. Set KUBECONFIG, or name a --context.")
    assert ".." not in str(refused.value)
