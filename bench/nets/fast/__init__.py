"""Backward passes written by hand, stacked networks, CUDA graphs: the same numbers, faster."""
