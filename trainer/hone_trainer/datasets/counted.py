"""What is counted of rows that are kept, a batch at a time: workers count, and the parent adds up, in order."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field

from hone_trainer.datasets.language import LanguageSample
from hone_trainer.datasets.pitfalls import question_hash
from hone_trainer.datasets.profile import Profile
from hone_trainer.datasets.splits import hash_of
from hone_trainer.datasets.spool import ValidRow
from hone_trainer.datasets.statistics import LengthHistogram


@dataclass
class Counted:
    """Of a batch of rows."""

    groups: array[int] = field(default_factory=lambda: array("Q"))
    """For each row the hash of its group, which decides its split."""
    contents: array[int] = field(default_factory=lambda: array("Q"))
    """For each row the hash of its content."""
    questions: array[int] = field(default_factory=lambda: array("Q"))
    """For each row the hash of what it asks; of a document, of its content."""
    lengths: LengthHistogram = field(default_factory=LengthHistogram)
    profile: Profile = field(default_factory=Profile)


class Count:
    """Counts batches; seed is that of the splits."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._sample = LanguageSample()
        """Of the batches that this process has seen: what is not in it is in no sample of more rows."""

    def rows(self, batch: Sequence[ValidRow]) -> Counted:
        """What the rows of a batch are."""
        counted = Counted()
        counted.profile.languages = self._sample.sieve()
        for row in batch:
            content = hash_of(row.line.encode(), 0)
            counted.groups.append(hash_of(row.group_key.encode(), self._seed))
            question = content if "text" in row.record else question_hash(row.record)
            counted.contents.append(content)
            counted.questions.append(question)
            counted.lengths.see(row.record)
            counted.profile.see(row.record, content, question)
        return counted
