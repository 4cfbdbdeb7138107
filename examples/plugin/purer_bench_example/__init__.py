"""One plug-in of each kind for purer-bench."""
