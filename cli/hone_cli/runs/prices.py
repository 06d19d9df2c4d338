"""What an hour of a GPU or a core costs, by a file of the person or the platform team."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic.alias_generators import to_camel

from hone_cli.errors import CommandError


class Prices(BaseModel):
    """The file."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="forbid")

    currency: str = "USD"
    gpu_hour: dict[str, float] = {}
    """By nvidia.com/gpu.product, or the name in Hone's table, e.g. NVIDIA-L4."""
    spot_gpu_hour: dict[str, float] = {}
    core_hour: float | None = None

    def of(self, product: str, *, spot: bool) -> float | None:
        """The price of an hour of one GPU; None: the file has none."""
        from hone_api.estimate import gpus

        table = self.spot_gpu_hour if spot else self.gpu_hour
        card = gpus.find(product)
        return table.get(product) or (table.get(card.name) if card else None)


def read(file: Path | None) -> Prices | None:
    """The prices of a file.

    Raises:
        CommandError: it has none.
    """
    import yaml

    if file is None:
        return None
    try:
        return Prices.model_validate(yaml.safe_load(file.read_text(encoding="utf-8")))
    except OSError as error:
        raise CommandError(f"{file}: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError, ValidationError) as error:
        where = ".".join(map(str, error.errors()[0]["loc"])) if isinstance(error, ValidationError) else ""
        raise CommandError(
            f"{file} is not a table of prices{f' ({where})' if where else ''}: it has currency, gpuHour, spotGpuHour "
            "(GPU: price) and coreHour"
        ) from None
