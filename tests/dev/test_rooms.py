"""Tests stand in the same rooms as what they test: `tests/<package>` has the folders of the package, and a few more for
what no single room of the package does."""

from pathlib import Path

import pytest

pytestmark = pytest.mark.pure
ROOT = Path(__file__).resolve().parents[2]
PACKAGES = {
    "api": "crds/hone_api",
    "operator": "operator/hone_operator",
    "trainer": "trainer/hone_trainer",
    "dev": "dev/hone_dev",
    "cli": "cli/hone_cli",
}
TESTED_ELSEWHERE = {
    **{
        f"operator/desired/{room}": "tests/operator/desired/test_objects.py builds every object"
        for room in ("dataset", "model", "run", "staging")
    },
    "api/methods": "an entry here has its trainer there: tests/trainer/methods/test_methods.py",
    "dev/chart": "its values are tested as Helm uses them, in tests/chart",
}
OF_THE_WHOLE = {
    "operator/access": "who may write what, at a real API server",
    "operator/command": "commands of `hone`, at a real API server",
    "operator/faults": "the operator is killed or starved, and objects are lost under it",
    "operator/life": "lives of objects from the first apply to the end",
    "operator/upgrade": "objects and definitions of other versions",
    "trainer/faults": "runs that are killed, starved, or stand still",
}


def rooms(package: str, folder: Path, modules: str) -> set[str]:
    """The folders below this one with such modules, as package/room."""
    return {f"{package}/{file.parent.relative_to(folder).as_posix()}" for file in folder.rglob(f"*/{modules}")}


@pytest.mark.parametrize("package", PACKAGES)
def test_tests_have_the_rooms_of_their_package(package: str) -> None:
    of_package = rooms(package, ROOT / PACKAGES[package], "__init__.py")
    of_tests = rooms(package, ROOT / "tests" / package, "test_*.py")
    excused = {room for room in TESTED_ELSEWHERE if room.startswith(f"{package}/")}
    of_the_whole = {room for room in OF_THE_WHOLE if room.startswith(f"{package}/")}
    assert of_tests - of_package == of_the_whole, "name a folder of tests like the folder of what it tests"
    assert of_package - of_tests == excused, "move the tests of these folders into one of the same name, or say why not"
