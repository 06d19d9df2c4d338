"""The operator: watches FineTuneJobs, Datasets, ModelVersions and Models, and creates the objects that they need."""

from hone_api import RELEASE

__version__ = RELEASE
