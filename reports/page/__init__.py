"""The HTML page of a report: one self-contained, printable and accessible file."""
