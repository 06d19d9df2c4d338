"""When a Model's job runs again."""
