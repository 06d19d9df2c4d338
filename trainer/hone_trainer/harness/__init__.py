"""Tasks of lm-evaluation-harness: looked up, staged by `python -m hone_trainer tasks`, measured before and after
training.

The harness makes the prompts, parses the answers and counts. Hone provides the data sets, staged and pinned, and the
model, which is the one in training. Only code from the harness's own package runs: none from a data set.

lm-eval 0.4 fills its cache only by downloads of its own, which keep to no permitted address and pin no commit, and
`evaluate` brings metrics as programs. So Hone resolves names (`catalogue`), stages rows (`staging`) and hands lm-eval
tasks whose rows are there (`tasks`); all else is `lm_eval.evaluator.evaluate`.
"""

from __future__ import annotations

import logging
import random
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version

PACKAGE = "lm-eval"
FIELD = "evaluation.harness"
SEEDS = {"random": 0, "numpy": 1234, "torch": 1234, "examples": 1234}
"""lm-eval's own defaults."""


def installed_version() -> str:
    """Version of the harness."""
    return version("lm_eval")


@contextmanager
def seeded() -> Iterator[None]:
    """Seed random numbers like lm-eval, and restore the run's random state afterwards."""
    import numpy as np

    logging.getLogger("lm_eval").setLevel(logging.ERROR)  # it warns about each default that a task relies on
    python, arrays = random.getstate(), np.random.get_state()
    random.seed(SEEDS["random"])
    np.random.seed(SEEDS["numpy"])
    try:
        with _torch():
            yield
    finally:
        random.setstate(python)
        np.random.set_state(arrays)


@contextmanager
def _torch() -> Iterator[None]:
    """The same for torch if it is loaded: the pod that stages tasks works without it."""
    torch = sys.modules.get("torch")
    if torch is None:
        yield
        return
    devices = [torch.cuda.current_device()] if torch.cuda.is_available() else []
    with torch.random.fork_rng(devices):
        torch.manual_seed(SEEDS["torch"])
        yield
