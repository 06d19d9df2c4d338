"""Filters: what keeps a generated row from the reviewers."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field

from hone_api.dataset.synthesis import Judge
from hone_trainer.endpoints.client import Endpoint
from hone_trainer.scoring.text_metrics import tokens

_RUBRIC = """\
Score this training example for a language model from 1 to 5. 5: correct, complete, clear, and useful. 3: usable with \
flaws. 1: wrong, empty or harmful. Answer with the number alone.

Example:
"""


@dataclass
class Similar:
    """Texts that were seen, and the largest ROUGE-L that a new one may have with any of them."""

    limit: float
    """From 0 to 1; Self-Instruct uses 0.7 (arXiv 2212.10560, section 2.2)."""
    _seen: list[list[str]] = field(default_factory=list)
    _exact: set[tuple[str, ...]] = field(default_factory=set)

    def see(self, texts: Iterable[str]) -> None:
        """Remember."""
        for text in texts:
            words = tokens(text)
            self._seen.append(words)
            self._exact.add(tuple(words))

    def nearest(self, text: str) -> float | None:
        """The similarity that is over the limit; None: nothing seen is that near."""
        words = tokens(text)
        if tuple(words) in self._exact:
            return 1.0
        if self.limit >= 1:
            return None
        for other in list(self._seen):
            if (similarity := rouge_l(words, other, self.limit)) > self.limit:
                return similarity
        return None


def rouge_l(a: list[str], b: list[str], at_least: float = 0.0) -> float:
    """ROUGE-L F1 (Lin 2004): 2 LCS / (len a + len b). 0 where it cannot reach `at_least`."""
    if not a or not b or 2 * min(len(a), len(b)) < at_least * (len(a) + len(b)):
        return 0.0
    from rapidfuzz.distance import LCSseq  # only where rows are generated: `hone check` does without it

    return 2 * LCSseq.similarity(a, b) / (len(a) + len(b))


@dataclass(frozen=True)
class RowJudge:
    """A model that scores rows."""

    endpoint: Endpoint
    model: str
    settings: Judge

    def score(self, text: str, seed: int) -> int | None:
        """1 to 5; None: the judge's answer has no score.

        Raises:
            PromptRefusedError: its server takes others.
            SourceError: EndpointUnreachable or EndpointRefused.
        """
        messages = [{"role": "user", "content": _RUBRIC + text}]
        answer = self.endpoint.chat(self.model, messages, temperature=0.0, max_tokens=512, seed=seed)
        scores = re.findall(r"(?<![\d.])[1-5](?![\d.]*\d)", answer.text)
        return int(scores[-1]) if scores else None
