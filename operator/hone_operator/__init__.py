"""The operator: watches FineTuneJobs, Datasets and ModelVersions, and makes what they ask for."""

__version__ = "0.1.0"
