"""The paper's claims, the comparisons that test each, and verdicts computed from records."""
