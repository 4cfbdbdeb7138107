"""Data sets: reading, decoding, caching, and the tasks drawn from them."""
