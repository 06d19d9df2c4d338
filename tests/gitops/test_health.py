"""The health scripts for Argo CD, on the cases that are next to them in Argo CD's own layout."""

from typing import Any

import lupa.lua51
import pytest
import yaml

from hone_api.generate import KINDS as API_KINDS
from hone_dev.generate import argocd

pytestmark = pytest.mark.pure
ROOT = argocd.FOLDER / "resource_customizations" / "hone.dev"
KINDS = ("FineTuneJob", "Dataset", "ModelVersion", "Model")


def cases() -> list[Any]:
    out = []
    for kind in KINDS:
        for test in yaml.safe_load((ROOT / kind / "health_test.yaml").read_text())["tests"]:
            out.append(pytest.param(kind, test, id=f"{kind}-{test['inputPath']}"))
    return out


@pytest.mark.parametrize(("kind", "test"), cases())
def test_health(health, kind, test):
    obj = yaml.safe_load((ROOT / kind / test["inputPath"]).read_text())
    assert obj["kind"] == kind
    assert health(obj) == test["healthStatus"]


@pytest.mark.parametrize("kind", KINDS)
def test_every_input_is_used_and_every_state_is_covered(kind):
    tests = yaml.safe_load((ROOT / kind / "health_test.yaml").read_text())["tests"]
    assert {t["inputPath"] for t in tests} == {f"testdata/{p.name}" for p in (ROOT / kind / "testdata").iterdir()}
    assert {"Healthy", "Progressing", "Degraded"} <= {t["healthStatus"]["status"] for t in tests}


@pytest.mark.parametrize(("kind", "test"), cases())
def test_every_input_is_an_object_that_the_api_server_takes(kind, test):
    (described,) = (each for each in API_KINDS if each.kind == kind)
    obj = yaml.safe_load((ROOT / kind / test["inputPath"]).read_text())
    described.spec.model_validate(obj["spec"])
    described.status.model_validate(obj.get("status") or {})


def test_the_sandbox_is_one(lua):
    for forbidden in ("('x'):upper()", "string.format('x')", "math.floor(1)", "io.open('x')", "os.execute('x')"):
        with pytest.raises(lupa.lua51.LuaError):
            lua.execute(f"return {forbidden}")


def test_the_patch_is_up_to_date():
    """Otherwise: python -m hone_dev.generate.argocd."""
    assert argocd.PATCH.read_text() == argocd.patch()
    data = yaml.safe_load(argocd.PATCH.read_text())["data"]
    for kind in KINDS:
        assert data[f"resource.customizations.health.hone.dev_{kind}"] == (ROOT / kind / "health.lua").read_text()
