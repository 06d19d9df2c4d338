"""The models refuse by themselves what must not reach a pod, where no API server stands before them: a laptop."""

import pytest
from pydantic import ValidationError

from hone_api.base.meta import ApiModel
from hone_api.blocks.delivery import Delivery
from hone_api.blocks.tracking import Tracking
from hone_api.dataset.dataset import Source
from hone_api.kinds.finetunejob import ModelRef

pytestmark = pytest.mark.pure

BAD = {
    "https://user:pw@host/x": "name a Secret in secretName",
    "s3://key:secret@bucket/x": "name a Secret in secretName",
    "pvc://claim/../x": "must not contain a . or .. segment",
    "pvc://claim/a/..": "must not contain a . or .. segment",
    "hf://a/b@../c": "must not contain a . or .. segment",
    "hf://a/../b": "should match pattern|must not contain a . or .. segment",
    "file:///etc/passwd": "a source of rows is hf://owner/name|a base model is hf://owner/name",
    "https://host/a\r\nX: y": "should match pattern",
    "pvc://claim/a\n": "should match pattern",
}


@pytest.mark.parametrize("model", [Source, ModelRef])
@pytest.mark.parametrize("uri", BAD)
def test_an_unsafe_address_is_refused(model: type[ApiModel], uri: str) -> None:
    with pytest.raises(ValidationError, match=BAD[uri]) as caught:
        model.model_validate({"uri": uri})
    assert caught.value.errors()[0]["loc"] == ("uri",)


def test_credentials_are_refused_wherever_an_address_is() -> None:
    for model, value in (
        (Delivery, {"uri": "oci://user:pw@registry/x"}),
        (Tracking, {"type": "MLflow", "uri": "https://user:pw@host"}),
    ):
        with pytest.raises(ValidationError, match="name a Secret in secretName"):
            model.model_validate(value)


@pytest.mark.parametrize(
    "uri", ["hf://owner/name@refs/pr/3", "pvc://claim/données/v1..2", "https://host/pkg@1.0/x?a=b"]
)
def test_a_plain_address_is_taken(uri: str) -> None:
    assert ModelRef(uri=uri).uri == uri
