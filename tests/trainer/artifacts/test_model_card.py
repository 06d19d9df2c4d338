"""The front matter of a model card is what a hub accepts."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from hone_api.blocks.delivery import ArtifactForm
from hone_api.plan import TrainingPlan
from hone_dev.hub.pushing import problems_of_card
from hone_trainer.artifacts import model_card

pytestmark = pytest.mark.pure


def front(form: ArtifactForm = "Adapter", **plan: Any) -> dict[str, Any]:
    body = {
        "run": "run",
        "modelPath": "/model",
        "modelUri": "hf://org/base@main",
        "datasets": [{"name": "rows", "path": "/rows.jsonl", "digest": "sha256:" + "0" * 64}],
        "output": {"modelName": "tutor"},
        "workPath": "/work",
        "outputPath": "/out",
        **plan,
    }
    card = model_card.render(TrainingPlan.model_validate(body), form, numbers=[], samples=[], resolved={}, steps=1)
    assert problems_of_card(card) == []
    fields: dict[str, Any] = yaml.safe_load(card.split("---\n")[1])
    return fields


@pytest.mark.parametrize(
    ("form", "relation"), [("Adapter", "adapter"), ("Merged", "finetune"), ("Full", "finetune"), ("GGUF", "quantized")]
)
def test_a_base_of_the_hub_is_named_with_how_each_form_comes_from_it(form: ArtifactForm, relation: str) -> None:
    fields = front(form)
    assert (fields["base_model"], fields["base_model_relation"]) == ("org/base", relation)
    assert "license" not in fields, "no licence is made up"


def test_a_base_on_a_volume_is_not_named_since_the_hub_would_refuse_it() -> None:
    assert "base_model" not in front(modelUri="pvc://claim/base")


@pytest.mark.parametrize("licence", ["apache-2.0", 'x"\n---\nbase_model: forged', "qwen-research"])
def test_the_licence_is_carried_over(licence: str) -> None:
    fields = front(modelLicense=licence)
    assert fields["base_model"] == "org/base"
    assert fields["license"] == (licence if licence == "apache-2.0" else "other")
