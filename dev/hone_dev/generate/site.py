"""The documentation as a folder of files that needs no other server: `python -m hone_dev.generate.site`.

The theme loads the program that draws diagrams from a CDN. Here it is next to the theme's own script, and only a page
with a diagram loads it.
"""

from __future__ import annotations

import argparse
import re
import shutil
import sys
from pathlib import Path

from hone_dev.generate import mermaid
from hone_dev.tools import paths
from hone_dev.tools.console import HoneDevError, show_error
from hone_dev.tools.shell import run

_CDN = re.compile(r'"https://[^"]+/mermaid@\d+/dist/mermaid\.min\.js"')
_HERE = 'new URL("mermaid.min.js",document.querySelector("script[src*=\'/bundle.\']").src).href'


def build(root: Path, script: Path) -> Path:
    """Build the pages of a folder with mkdocs.yml; returns the folder of the site.

    Args:
        script: mermaid.min.js.
    """
    run(Path(sys.executable).with_name("zensical"), "build", "--strict", cwd=root)
    scripts = root / "site/assets/javascripts"
    for bundle in scripts.glob("bundle.*.js"):
        load_diagrams_from_here(bundle)
    shutil.copy(script, scripts / "mermaid.min.js")
    return root / "site"


def load_diagrams_from_here(bundle: Path) -> None:
    """Let the theme's script look for mermaid.min.js in its own folder.

    Raises:
        HoneDevError: it does not name one address of it, as it did.
    """
    text, count = _CDN.subn(_HERE, bundle.read_text())
    if count != 1:
        raise HoneDevError(
            f"{bundle.name} names {count} addresses of mermaid, not 1", "compare hone_dev/generate/site.py"
        )
    bundle.write_text(text)


def main() -> None:
    argparse.ArgumentParser(description=__doc__).parse_args()
    try:
        print(build(paths.SOURCE, mermaid.script()))
    except HoneDevError as error:
        show_error(error)
        sys.exit(1)


if __name__ == "__main__":
    main()
