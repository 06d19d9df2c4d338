"""The operator's real image, built and pushed as `make release` does."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from hone_dev.cluster import binaries, imageregistry, images
from hone_dev.release import supply
from hone_dev.tools.console import HoneDevError
from hone_dev.tools.shell import run

pytestmark = pytest.mark.e2e


def test_the_image_is_found_by_digest_and_small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with imageregistry.serve(tmp_path) as registry:
        pushed = images.push(f"{registry.host}/hone", insecure=True, targets=("operator",))
        reference, sizes = pushed["operator"]
        assert reference.startswith(f"{registry.host}/hone/operator@sha256:")
        assert 0 < sizes["code"] < 5_000_000 < sizes["all"] <= 200_000_000
        name, _, digest = reference.partition("@")
        tag = images.reference("operator").rpartition(":")[2]
        oras = binaries.program("oras")
        assert run(oras, "resolve", "--plain-http", f"{name}:{tag}").strip() == digest
        monkeypatch.setitem(images._MOST, "code", sizes["code"] - 1)
        with pytest.raises(HoneDevError, match="is too large"):
            images.sizes_of("operator", reference, ("--plain-http",))


@pytest.mark.long
def test_two_makers_list_the_same_packages_of_the_image(tmp_path: Path) -> None:
    supply.write_boms(tmp_path)
    supply.complete(tmp_path, "operator")
    text = (tmp_path / "operator.cdx.json").read_text()
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
    listed = json.loads(text)
    kinds = [each["purl"].partition("/")[0] for each in listed["components"]]
    assert kinds.count("pkg:deb") > 50
    assert kinds.count("pkg:pypi") > 10
    less = {"components": listed["components"][1:]}
    with pytest.raises(HoneDevError, match="syft not-listed operator pkg:"):
        supply.compare("operator", less, listed)


def test_a_build_that_was_interrupted_is_in_nobodys_way() -> None:
    """Its container uses the image of earlier sources, which could not be removed, so that each later build failed."""
    earlier = f"{images.REGISTRY}/hone/other:earlier"
    scratch = images._buildah("from", "scratch").strip()
    images._buildah("commit", "--quiet", scratch, earlier)
    images._buildah("from", "--pull-never", earlier)
    with images._builder():
        images._forget_others("other", "")
    assert earlier not in images._images()
