"""Documents of the rendered chart, by kind and name."""

import subprocess
from pathlib import Path

from hone_dev.tools import paths, tools

CHART = paths.SOURCE / "charts" / "hone"
IMAGES = ("--values", Path(__file__).with_name("chart_images.yaml"))


class HelmError(Exception):
    """helm refused; the message is what it said."""


def template(values: str, *arguments: str) -> str:
    """What `helm template` makes of these values, which are JSON, over IMAGES."""
    command = [tools.helm(), "template", "hone", CHART, "--namespace", "hone-system"]
    command += [*IMAGES, "--values", "-", *arguments]
    result = subprocess.run(command, input=values, capture_output=True, text=True)
    if result.returncode:
        raise HelmError(result.stderr)
    return result.stdout


def of_kind(documents, *kinds):
    return [d for d in documents if d["kind"] in kinds]


def named(documents, kind, name):
    return next(d for d in documents if d["kind"] == kind and d["metadata"]["name"] == name)
