"""Helm applies documents in the order in which it prints them."""

import pytest

pytestmark = pytest.mark.pure


def test_definitions_are_applied_before_the_operator_that_needs_them(render):
    kinds = [document["kind"] for document in render()]
    last = max(n for n, kind in enumerate(kinds) if kind == "CustomResourceDefinition")
    assert last < kinds.index("Deployment")
