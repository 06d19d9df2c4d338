"""Progress and results as others see them: terminal, operator, Prometheus, HTML, termination message."""
