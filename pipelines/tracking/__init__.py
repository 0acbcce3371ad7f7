"""MLflow: runs, their store, and figures that are logged while a stage runs."""
