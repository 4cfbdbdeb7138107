"""Running cells: fits, tests, plans, and the engines that run many cells."""
