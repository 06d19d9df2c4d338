"""The operator: watches FineTuneJobs, Datasets and ModelVersions, and makes what they ask for."""

from hone_api import RELEASE

__version__ = RELEASE
