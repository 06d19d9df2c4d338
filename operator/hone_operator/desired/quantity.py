"""Kubernetes quantities, as far as the operator must compute with them."""

from decimal import Decimal

_FACTOR = {
    "": Decimal(1),
    "m": Decimal("0.001"),
    **{s: Decimal(1000) ** (n + 1) for n, s in enumerate(("k", "M", "G", "T", "P", "E"))},
    **{s: Decimal(1024) ** (n + 1) for n, s in enumerate(("Ki", "Mi", "Gi", "Ti", "Pi", "Ei"))},
}


def value(quantity: str) -> Decimal:
    """The number that a quantity stands for: '500m' is 0.5, '8Gi' is 8589934592."""
    digits = quantity.rstrip("mkMGTPEi")
    return Decimal(digits) * _FACTOR[quantity[len(digits) :]]


def cores(number: Decimal) -> str:
    """A number of cores as a quantity: 0.5 is '500m', 4 is '4'."""
    return str(int(number)) if number == int(number) else f"{int(number * 1000)}m"


def threads(cpu: str, processes: int) -> int:
    """OpenMP threads for each of `processes` that share a CPU request: spinning threads without a core are slow."""
    return max(1, int(value(cpu) / processes))
