"""Suites: YAML files that name cells, and how they expand."""
