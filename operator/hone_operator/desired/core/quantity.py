"""Conversions of resource quantities."""

from decimal import Decimal

from hone_api.base.quantity import value


def cores(number: Decimal) -> str:
    """A number of cores as a quantity: 0.5 is '500m', 4 is '4'."""
    return str(int(number)) if number == int(number) else f"{int(number * 1000)}m"


def threads(cpu: str, processes: int) -> int:
    """OpenMP threads for each of `processes` that share a CPU request: spinning threads without a core are slow.

    A half core counts as one. A request is not a limit, and a pod that wants both cores of a small node cannot request
    them whole, since other pods are there.
    """
    return max(1, int((value(cpu) + Decimal("0.5")) // processes))
