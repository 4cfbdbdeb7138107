"""Suites: YAML files and their expansion into cells."""
