"""Records, data sets and the package itself in formats of others: pure functions. No torch."""
