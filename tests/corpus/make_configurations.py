"""`python tests/corpus/make_configurations.py FOLDER` packs the example configurations of other tools.

FOLDER has a checkout of each repository, in a folder named as in `SOURCES`; tests/corpus/configurations/README.md names
the commits.
"""

from __future__ import annotations

import json
import lzma
import sys
from pathlib import Path

SOURCES = {"axolotl": "examples", "llamafactory": "examples", "torchtune": "recipes", "automodel": "examples"}
FOLDER = Path(__file__).with_name("configurations")


def main(checkouts: Path) -> None:
    """Write one file a tool: a line of JSON with path and text for each YAML file."""
    for tool, below in SOURCES.items():
        root = checkouts / tool
        files = sorted(file for file in (root / below).rglob("*") if file.suffix in (".yaml", ".yml"))
        rows = [json.dumps({"path": str(file.relative_to(root)), "text": file.read_text()}) for file in files]
        FOLDER.joinpath(f"{tool}.jsonl.xz").write_bytes(lzma.compress("\n".join(rows).encode(), preset=9))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
