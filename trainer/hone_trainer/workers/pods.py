"""Several pods that share one piece of work: which part of it is this one's.

They meet in the store alone: a file that exists is done. No pod waits for another one. The first one does what is
missing once its own share is done, so a pod that is late, lost or never starts costs time and nothing else.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from dataclasses import dataclass

from hone_api.plan import POD_INDEX_ENV
from hone_trainer.errors import ConfigError


@dataclass(frozen=True)
class Pod:
    """One of them."""

    index: int = 0
    count: int = 1

    @property
    def leads(self) -> bool:
        """Whether it finishes the work."""
        return self.index == 0

    def order(self, items: int) -> Iterator[int]:
        """The items that it does, unless they are done: its share, and for the first pod those of the others, the
        last one first."""
        share = range(self.index, items, self.count)
        return itertools.chain(share, (n for n in reversed(range(items)) if n % self.count) if self.leads else ())


ALONE = Pod()


def this_pod(pods: int | None) -> Pod:
    """This one of so many.

    Raises:
        ConfigError: the environment does not say which of several it is.
    """
    if pods is None:
        return ALONE
    text = os.environ.get(POD_INDEX_ENV, "")
    if not text.isdecimal() or int(text) >= pods:
        raise ConfigError(f"the plan is for {pods} pods, and {POD_INDEX_ENV} is {text!r}: it must be 0 to {pods - 1}")
    return Pod(int(text), pods)
