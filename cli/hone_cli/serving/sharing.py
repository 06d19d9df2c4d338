"""How requests for one model are shared out over its versions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from hone_cli.errors import CommandError
from hone_cli.serving.models import ServedModel

MOST_WEIGHT = 1_000_000
"""Of InferenceModelRewrite and of HTTPRoute."""


@dataclass(frozen=True)
class Sharing:
    """What a person chooses, as the options of `hone serve` have it."""

    weights: str | None = None
    mirror: bool = False
    gateway: str | None = None

    def check(self, to: str) -> None:
        """Refuse options that `to` has no use for.

        Raises:
            CommandError: there is such an option, or --weights and --mirror are given both.
        """
        if self.weights is not None and to not in ("rewrite", "httproute"):
            raise CommandError("--weights is for --to rewrite and --to httproute")
        if (self.mirror or self.gateway is not None) and to != "httproute":
            raise CommandError("--mirror and --gateway are for --to httproute")
        if self.mirror and self.weights is not None:
            raise CommandError("with --mirror one version answers all requests: leave --weights out")

    def shares(self, models: Sequence[ServedModel], least: int) -> list[int]:
        """One weight for each version; their sum need not be 100.

        Args:
            least: what the server takes as the lowest weight.

        Raises:
            CommandError: there is not one number from `least` on for each version, or all are 0.
        """
        versions = ", ".join(m.version for m in models)
        refused = CommandError(
            f"--weights needs a number from {least} on for each version ({versions}), e.g. --weights 90,10"
        )
        try:
            weights = [int(w) for w in (self.weights or "").split(",")]
        except ValueError:
            raise refused from None
        if len(weights) != len(models) or not all(least <= w <= MOST_WEIGHT for w in weights) or not any(weights):
            raise refused
        return weights
