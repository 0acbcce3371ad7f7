"""MLflow: runs, their store, and live figures."""
