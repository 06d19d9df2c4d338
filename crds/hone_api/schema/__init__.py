"""From models to CustomResourceDefinitions and pages of the reference."""
