"""Teachers for distillation: a ModelVersion or an endpoint, its answers or its distribution."""
