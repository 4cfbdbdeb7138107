"""One HTML page of everything: self-contained, offline, printable, for keyboard and reader."""
