"""The benchmark harness: data, teachers, learners, evaluation, records, command line."""

__version__ = "0.1.0"
