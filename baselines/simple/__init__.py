"""Rows that use the pool hardly or not at all: random weights, the best teacher, oracles."""
