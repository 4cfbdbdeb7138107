"""Records: model, files, storage, and the MLflow store that shows them."""
