"""Running cells: one cell, its fit, and the engines that run many."""
