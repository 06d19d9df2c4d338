"""Runs whose attempts may have fewer nodes than they ask for: which numbers, and for which runs."""

from __future__ import annotations

from hone_api.base.rule import Rule
from hone_api.blocks.placement import Resources
from hone_api.blocks.training import Training
from hone_api.methods import METHODS

METHODS_ON_ANY_RANKS = tuple(str(info.name) for info in METHODS.values() if info.row_by_row)
"""Methods whose loss is the same on any number of ranks."""

ELASTIC_RULES = (
    Rule(
        f"!has(self.resources.minNodes) || self.method in {list(METHODS_ON_ANY_RANKS)}",
        f"resources.minNodes is for the methods {', '.join(METHODS_ON_ANY_RANKS)}, whose loss does not depend on the "
        "number of ranks: remove it",
        field_path=".resources",
    ),
)
"""Rules of a spec."""


def node_counts(resources: Resources, training: Training) -> list[int]:
    """Numbers of nodes that an attempt may have, largest first: the rows of a step divide evenly over each."""
    fewest = resources.min_nodes or resources.nodes
    pass_rows = _groups(resources, training) * (training.fixed_micro_batch or 1)
    smaller = range(resources.nodes - 1, fewest - 1, -1)
    return [resources.nodes, *(nodes for nodes in smaller if training.batch_size % (nodes * pass_rows) == 0)]


def _groups(resources: Resources, training: Training) -> int:
    """Ranks of a node that have rows of their own."""
    return max(1, resources.gpus_per_node // training.ranks_of_row)


def elastic_problems(resources: Resources, training: Training) -> list[str]:
    """Why an attempt cannot have fewer nodes, with the way out."""
    if resources.min_nodes is None or len(node_counts(resources, training)) > 1:
        return []
    micro = training.fixed_micro_batch or 1
    return [
        f"resources.minNodes {resources.min_nodes}: training.batchSize {training.batch_size} is not a multiple of "
        f"nodes x {_groups(resources, training)} ranks x microBatchSize {micro} for any number from minNodes "
        f"to {resources.nodes - 1}: lower minNodes, change batchSize, or remove minNodes"
    ]
