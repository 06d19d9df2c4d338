"""Hone for Python programs and notebooks: `from hone import Client`."""

from hone_api.dataset.dataset import DatasetSpec
from hone_api.kinds.finetunejob import FineTuneJobSpec
from hone_api.kinds.model import ModelSpec
from hone_cli.clients.asynchronous import AsyncClient
from hone_cli.clients.client import HoneClient as Client
from hone_cli.clients.client import HoneRun as Run
from hone_cli.clients.client import HoneVersion as Version
from hone_cli.clients.client import NotFinishedError, PlanRefusedError, RunFailedError, manifest
from hone_cli.errors import CommandError as HoneError

__all__ = [
    "AsyncClient",
    "Client",
    "DatasetSpec",
    "FineTuneJobSpec",
    "HoneError",
    "ModelSpec",
    "NotFinishedError",
    "PlanRefusedError",
    "Run",
    "RunFailedError",
    "Version",
    "manifest",
]
