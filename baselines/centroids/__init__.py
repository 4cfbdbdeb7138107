"""Nearest class centroids on the features of one teacher or of all."""
