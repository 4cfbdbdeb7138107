"""Suites, one per YAML file."""
