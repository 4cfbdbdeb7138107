"""The baselines: every registered method except PURER, one file per method."""
