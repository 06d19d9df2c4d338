"""The operator: watches FineTuneJobs, Datasets and ModelVersions, and creates the objects that they need."""

from hone_api import RELEASE

__version__ = RELEASE
