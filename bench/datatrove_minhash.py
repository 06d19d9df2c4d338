"""Near duplicates by datatrove, for bench/dataset.py: the four MinHash steps in one process.

    python bench/datatrove_minhash.py ROWS.jsonl WORK

3-grams of words and 21 buckets of 6 hashes, as Hone takes for a similarity of 80%. Words are split at blanks, which is
faster than datatrove's own tokenizers.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

from datatrove.data import Document
from datatrove.pipeline.base import PipelineStep
from datatrove.pipeline.dedup import (
    MinhashConfig,
    MinhashDedupBuckets,
    MinhashDedupCluster,
    MinhashDedupFilter,
    MinhashDedupSignature,
)
from datatrove.utils.logging import logger
from datatrove.utils.word_tokenizers import WordTokenizer


class Blanks(WordTokenizer):
    """Words are what blanks part."""

    def word_tokenize(self, text: str) -> list[str]:
        return text.split()

    def sent_tokenize(self, text: str) -> list[str]:
        return [text]

    def span_tokenize(self, text: str) -> list[tuple[int, int]]:
        return [(0, len(text))]


class Reader(PipelineStep):
    """The rows of the file."""

    name = "rows"
    type = "reader"

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path

    def run(self, data, rank=0, world_size=1):
        with open(self.path, encoding="utf-8") as lines:
            for number, line in enumerate(lines):
                row = json.loads(line)
                yield Document(text=f"{row['question']} {row['answer']}", id=str(number))


def main(rows: Path, work: Path) -> None:
    logger.remove()
    config = MinhashConfig(n_grams=3, num_buckets=21, hashes_per_bucket=6)
    started, worked = time.monotonic(), time.process_time()
    MinhashDedupSignature(str(work / "signatures"), config=config, language=Blanks()).run(Reader(rows).run(None))
    for bucket in range(config.num_buckets):
        step = MinhashDedupBuckets(str(work / "signatures"), str(work / "buckets"), config=config)
        step.run(None, bucket, config.num_buckets)
    MinhashDedupCluster(str(work / "buckets"), str(work / "removed"), config=config).run(None)
    left = 0
    with open(work / "kept.jsonl", "w", encoding="utf-8") as kept:
        for document in MinhashDedupFilter(str(work / "removed")).run(Reader(rows).run(None)):
            kept.write(json.dumps({"text": document.text}) + "\n")
            left += 1
    seconds, cpu = time.monotonic() - started, time.process_time() - worked
    # Not ru_maxrss: a process inherits that of the one that starts it.
    peak = int(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0]) / 1024
    print(json.dumps({"rows": left, "seconds": seconds, "cpu": cpu, "parent_mib": peak, "worker_mib": 0}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
