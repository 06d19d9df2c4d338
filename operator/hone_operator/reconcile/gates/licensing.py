"""Advice on licences of base models and data that forbid the use which a job names."""

from collections.abc import Iterator, Mapping
from typing import Any

from hone_api.base import licences
from hone_api.kinds.finetunejob import FineTuneJobSpec
from hone_operator.reconcile.gates.basemodel import BaseModel
from hone_operator.reconcile.staging import inputs


def advise(spec: FineTuneJobSpec, model: BaseModel, datasets: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """A sentence for each licence that forbids spec.use by its name; the licence's text is not read."""
    if spec.use != "Commercial":
        return []
    sentences = [
        f"spec.use is Commercial, and {what} has the licence {name}, which forbids that: use another, or ask its owner."
        for what, text in _licensed(spec, model, datasets)
        for name in licences.names(text)
        if licences.forbids_commercial_use(name)
    ]
    return list(dict.fromkeys(sentences))


def _licensed(
    spec: FineTuneJobSpec, model: BaseModel, datasets: Mapping[str, Mapping[str, Any]]
) -> Iterator[tuple[str, str | None]]:
    """What the model will be made from, through all stages of the chain, and its licence."""
    yield f"the base model {spec.model.uri or (model.version and model.version.name)}", model.license
    for stage in model.ancestors:
        yield f"the base model {stage.base_model.uri}", stage.base_model.license
        if stage.imported:
            yield f"the imported model {stage.imported.uri}", stage.imported.license
        for rows in stage.datasets:
            yield f"Dataset {rows.name} of {stage.model_version}", rows.license
    for name, licence in inputs.licences(spec, datasets).items():
        yield f"Dataset {name}", licence
