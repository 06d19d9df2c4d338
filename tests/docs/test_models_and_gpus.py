"""The page of models and GPUs: its models have the weights that the hub counts, its recipes fit their GPUs."""

import pytest
import yaml

from hone_api.estimate import gpus
from hone_api.estimate.memory import estimate
from hone_api.estimate.micro_batch import setup
from hone_api.kinds.finetunejob import FineTuneJobSpec
from hone_dev.generate import models_and_gpus as page

pytestmark = pytest.mark.pure


def test_the_page_is_generated():
    assert page.PAGE.read_text() == page.page(), "run python -m hone_dev.generate.models_and_gpus"


@pytest.mark.parametrize("model", page.MODELS)
def test_the_sizes_of_a_model_multiply_to_its_weights(model):
    """Up to norms and biases, which no size names."""
    shape = page.MODELS[model]
    matrices = sum(wide * high for wide, high in shape.linear.values())
    assert shape.embeddings + shape.layers * matrices == pytest.approx(shape.parameters, rel=3e-4)


@pytest.mark.parametrize("recipe", page.RECIPES, ids=lambda recipe: recipe.title)
def test_a_recipe_fits_the_gpu_of_its_title(recipe):
    spec = FineTuneJobSpec.model_validate(yaml.safe_load(page.manifest(recipe))["spec"])
    (product,) = spec.resources.gpu_products
    gpu = gpus.find(product)
    assert gpu is not None
    assert gpu.name == recipe.gpu
    sized = setup(
        spec,
        page.MODELS[recipe.model],
        ranks=spec.resources.gpus_per_node,
        gpu=True,
        bf16=gpu.bf16,
        longest=spec.training.max_length,
        memory=gpu.memory,
    )
    assert estimate(sized).total <= page.TIGHT * gpu.memory
