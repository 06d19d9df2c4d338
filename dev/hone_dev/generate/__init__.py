"""What is written from code: pages, dashboards, pictures."""
