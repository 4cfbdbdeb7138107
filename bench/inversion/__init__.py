"""Inverting a teacher: losses and optimisation of pseudo images, for any method."""
