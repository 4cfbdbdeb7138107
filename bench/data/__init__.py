"""Data sets: what one offers, how it is opened and cached, and the tasks drawn from it."""
