"""Meta-training: where a meta-model starts, the loop, and the curriculum."""
