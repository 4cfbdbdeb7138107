"""The harness: data, tasks, teachers, learners, evaluation, records and the command line."""

__version__ = "0.1.0"
