"""One file a stage: what dvc.yaml calls."""
