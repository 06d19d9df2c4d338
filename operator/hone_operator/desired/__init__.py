"""What should exist: pure builders of whole Kubernetes objects, deterministic in names."""
