"""Counts that leave a second or so of the suite `micro`."""

COUNTS = {
    "teacher_epochs": 1,
    "max_teachers": 2,
    "meta_iterations": 4,
    "oracle_iterations": 4,
    "validate_every": 2,
    "n_val_tasks": 4,
}
METHODS = ("average", "ensemble_centroids", "purer")
N_TASKS = 16
SETTINGS = {f"budget.{key}": value for key, value in COUNTS.items()}
SETTINGS |= {"n_test_tasks": N_TASKS, "n_query": 5}
