"""Words for what pydantic refuses in a spec (an object older or newer than this operator)."""

from pydantic import ValidationError


def spec_problems(error: ValidationError) -> str:
    """Every wrong field at once, without its value (it may be long, or private)."""
    parts = []
    for e in error.errors(include_url=False, include_input=False):
        parts.append(f"spec.{'.'.join(str(x) for x in e['loc'])}: {e['msg']}")
    return "; ".join(parts)
