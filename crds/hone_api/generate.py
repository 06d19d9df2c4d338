"""Write what is generated from the models: the CRDs (also into the chart), the blocks of
methods, the types of statuses, and the pages of the reference.

python -m hone_api.generate [--check]
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

import yaml

from hone_api.base.meta import Kind
from hone_api.dataset.dataset import DATASET
from hone_api.kinds.finetunejob import FINE_TUNE_JOB
from hone_api.kinds.model import MODEL
from hone_api.kinds.modelversion import MODEL_VERSION
from hone_api.methods.table import blocks
from hone_api.schema.reference import conditions, kind_page, reference
from hone_api.schema.schema import crd
from hone_api.schema.status_types import status_types

ROOT = Path(__file__).resolve().parents[2]
KINDS: tuple[Kind, ...] = (FINE_TUNE_JOB, DATASET, MODEL_VERSION, MODEL)
BLOCKS = ROOT / "crds/hone_api/methods/blocks.py"
HEADER = "# Generated from crds/hone_api by `make crds`. Do not edit.\n"


def files() -> dict[Path, str]:
    """Path and content of every generated file."""
    out: dict[Path, str] = {BLOCKS: blocks()}
    for kind in KINDS:
        text = HEADER + yaml.safe_dump(crd(kind), sort_keys=False, width=100, allow_unicode=True)
        for folder in ("crds", "charts/hone/files/crds"):
            out[ROOT / folder / f"{kind.plural}.yaml"] = text
        out[ROOT / "docs/reference" / f"{kind.singular}.md"] = kind_page(kind)
    out[ROOT / "docs/reference/api.md"] = reference(KINDS)
    out[ROOT / "docs/reference/conditions.md"] = conditions()
    out[ROOT / "crds/hone_api/contract/status_json.py"] = status_types(KINDS)
    return out


def main() -> int:
    """Exit code 1 with --check if a file is out of date."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="change nothing; fail when a file is out of date")
    args = parser.parse_args()
    stale = [path for path, text in files().items() if not path.exists() or path.read_text() != text]
    for path in stale:
        print(f"{'out of date' if args.check else 'wrote'}: {path.relative_to(ROOT)}")
        if not args.check:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(files()[path])
        if path == BLOCKS and not args.check:  # the models of this process lack the new method
            os.execv(sys.executable, [sys.executable, "-m", "hone_api.generate"])
    if args.check and stale:
        print("Run `make crds` and commit the result.")
    return 1 if args.check and stale else 0


if __name__ == "__main__":
    sys.exit(main())
