"""Teachers for distillation: a ModelVersion or an endpoint, which gives its answers or its distribution."""
