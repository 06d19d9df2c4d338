"""MLflow: the run that a job is logged to, and the registry in which its model is registered."""
