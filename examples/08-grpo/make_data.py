#!/usr/bin/env python3
"""Make the sums of this example: each pair of numbers up to 15 once.

python examples/08-grpo/make_data.py
"""

import json
import random
from pathlib import Path

HERE = Path(__file__).parent
LARGEST = 15
HEAD = """\
# Sums with their results, by examples/08-grpo/make_data.py.
apiVersion: v1
kind: ConfigMap
metadata:
  name: sums
data:
  rows.jsonl: |
"""


def files() -> dict[Path, str]:
    """What the generator makes: path to text."""
    sums = [(a, b) for a in range(1, LARGEST + 1) for b in range(a, LARGEST + 1)]
    random.Random(8).shuffle(sums)
    rows = [json.dumps({"question": f"What is {a} + {b}?", "answer": str(a + b)}) for a, b in sums]
    return {HERE / "data.yaml": HEAD + "".join(f"    {row}\n" for row in rows)}


if __name__ == "__main__":
    for path, text in files().items():
        path.write_text(text)
