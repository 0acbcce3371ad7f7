"""The registered model as MLflow loads it."""
