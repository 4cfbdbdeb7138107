"""The data sets, one file each, with the official class splits."""
