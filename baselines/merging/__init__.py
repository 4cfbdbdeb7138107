"""Merges of the teachers' weights into one network."""
