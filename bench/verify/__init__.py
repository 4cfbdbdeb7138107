"""Checks of records that others hand in, or ours: nothing is run, no plug-in loaded. No torch."""
