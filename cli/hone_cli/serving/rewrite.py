"""llm-d and the Gateway API inference extension: an InferenceModelRewrite that shares requests out over versions.

Fields as in apix/v1alpha2 of llm-d/llm-d-router, where this kind lives since it left the inference extension (its group
was inference.networking.x-k8s.io then).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hone_cli.errors import CommandError
from hone_cli.serving.models import ServedModel
from hone_cli.serving.sharing import Sharing
from hone_cli.serving.vllm import Server


def render(models: Sequence[ServedModel], server: Server, sharing: Sharing) -> list[dict[str, Any]]:
    """A rewrite of the requests for a model.

    Args:
        server: its name is that of the InferencePool.

    Raises:
        CommandError: these are not versions of one model, or there is not one weight for each.
    """
    if len({m.model for m in models}) > 1:
        raise CommandError(
            "a rewrite shares out the requests of one model over its versions: name versions of one model"
        )
    weights = sharing.shares(models, least=1)
    model = models[0].model
    rule = {
        "matches": [{"model": {"type": "Exact", "value": model}}],
        "targets": [{"modelRewrite": m.version, "weight": w} for m, w in zip(models, weights, strict=True)],
    }
    return [
        {
            "apiVersion": "llm-d.ai/v1alpha2",
            "kind": "InferenceModelRewrite",
            "metadata": {"name": model, "namespace": server.namespace},
            "spec": {
                "poolRef": {"group": "inference.networking.k8s.io", "kind": "InferencePool", "name": server.name},
                "rules": [rule],
            },
        }
    ]
