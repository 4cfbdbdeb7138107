"""Meta-training: the initialisation of the meta-model, the loop, and the curriculum."""
