"""Faster implementations: hand-written backward passes, stacked networks, CUDA graphs."""
