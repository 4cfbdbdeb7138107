"""A static website of records: a page per scenario, method and cell, and a feed of changes."""
