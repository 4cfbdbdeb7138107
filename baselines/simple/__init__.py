"""Reference methods: random weights, the best teacher, oracles."""
