"""A project folder: dvc.yaml, hashes of code, keys of work in progress, what a version comes from."""
