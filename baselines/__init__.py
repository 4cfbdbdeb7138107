"""Every other way to use a pool of teachers, one file per method."""
