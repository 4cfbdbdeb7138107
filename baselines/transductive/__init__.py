"""Transductive heads: calibrations that classify all queries of a task together."""
