"""Kubernetes quantities, as far as Hone computes with them."""

from decimal import Decimal

_FACTOR = {
    "": Decimal(1),
    "m": Decimal("0.001"),
    **{s: Decimal(1000) ** (n + 1) for n, s in enumerate(("k", "M", "G", "T", "P", "E"))},
    **{s: Decimal(1024) ** (n + 1) for n, s in enumerate(("Ki", "Mi", "Gi", "Ti", "Pi", "Ei"))},
}


def value(quantity: str) -> Decimal:
    """The value of a quantity: '500m' is 0.5, '8Gi' is 8589934592."""
    digits = quantity.rstrip("mkKMGTPEi")
    return Decimal(digits) * _FACTOR[quantity[len(digits) :]]
