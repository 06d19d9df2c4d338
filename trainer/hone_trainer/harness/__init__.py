"""Tasks of lm-evaluation-harness: found by name, staged by `python -m hone_trainer tasks`, measured before and after.

The harness makes the prompts, parses the answers and counts. Ours are the data sets, which are staged and pinned, and
the model, which is the one in training. Only what the harness's own package says is run: nothing of a data set.
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


def installed() -> str:
    """Version of the harness."""
    return version("lm_eval")


@contextmanager
def seeded() -> Iterator[None]:
    """Random numbers as lm-eval seeds them; those of the run go on afterwards as if nothing had happened."""
    import numpy as np

    logging.getLogger("lm_eval").setLevel(logging.ERROR)  # it warns of each default that a task leaves to it
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
    """The same of torch, where it is loaded: the pod that stages tasks can do without."""
    torch = sys.modules.get("torch")
    if torch is None:
        yield
        return
    devices = [torch.cuda.current_device()] if torch.cuda.is_available() else []
    with torch.random.fork_rng(devices):
        torch.manual_seed(SEEDS["torch"])
        yield
