"""Teachers: how they are trained, which pool they form, where they are kept."""
