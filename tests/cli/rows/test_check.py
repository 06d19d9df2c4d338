"""What `hone check` needs: the extra `data`, and nothing else of the packages of a developer."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions, requires
from pathlib import Path

import pytest

from hone_cli.rows.check import _NEEDED
from hone_dev.tools import paths

pytestmark = pytest.mark.trainer

PROJECT = tomllib.loads((paths.SOURCE / "cli/pyproject.toml").read_text())["project"]
OF_DATA = {
    *("duckdb", "google-re2", "jinja2", "jmespath", "markupsafe", "numpy", "py3langid", "pyarrow", "pyyaml"),
    *("rensa", "urllib3"),
}
"""What `data` installs. On Linux, 286 MB of 293 MB are pyarrow, DuckDB and numpy: another needs a reason."""
CHECK = """\
import sys
from importlib.abc import MetaPathFinder

refused = set(sys.argv.pop(1).split())

class Absent(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in refused:
            raise ModuleNotFoundError(f"{name} is not of the extra", name=name)

sys.meta_path.insert(0, Absent())
sys.argv[0] = "validate"
from hone_trainer.__main__ import main
sys.exit(main())
"""


def installed_with(requirements: list[str]) -> set[str]:
    """Names of all packages that these requirements install."""
    found: set[str] = set()
    while requirements:
        requirement = requirements.pop()
        name = re.sub(r"[-_.]+", "-", re.match(r"[\w.-]+", requirement)[0].lower())
        if "extra ==" not in requirement and "python_" not in requirement and name not in found:
            found.add(name)
            requirements += requires(name) or []
    return found


def test_the_extra_installs_these_packages_and_no_other() -> None:
    assert installed_with(PROJECT["optional-dependencies"]["data"][:]) == OF_DATA


@pytest.mark.parametrize("form", ["pairs", "chat", "preference"])
def test_rows_are_checked_with_the_packages_of_the_extra_alone(tmp_path: Path, form: str) -> None:
    rows = {
        "pairs": {"prompt": "How do I reset it {}?", "completion": "Open Settings {}, then Reset."},
        "chat": {"messages": [{"role": "user", "content": "Hello {}"}, {"role": "assistant", "content": "Day {}"}]},
        "preference": {"prompt": "Say {}", "chosen": "yes {}", "rejected": "no {}"},
    }[form]
    text = json.dumps(rows).replace("{}", "N")
    (tmp_path / "rows.jsonl").write_text("".join(re.sub(r"\bN\b", str(n), text) + "\n" for n in range(200)))
    names = {*OF_DATA, *installed_with(PROJECT["dependencies"][:])}
    others = {
        module
        for module, packages in packages_distributions().items()
        if not {re.sub(r"[-_.]+", "-", package.lower()) for package in packages} & names
    } - {"hone_api", "hone_cli", "hone_trainer"}
    assert {"rapidfuzz", "optuna"} <= others
    assert not others & {*_NEEDED}
    words = [sys.executable, "-c", CHECK, " ".join(others), "validate", str(tmp_path / "rows.jsonl"), "--json"]
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["rows"] == 200
