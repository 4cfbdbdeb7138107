"""Records: their model, their files, where they lie, and the MLflow store that shows them."""
