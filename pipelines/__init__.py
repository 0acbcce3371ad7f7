"""Stage functions of the pipeline; one heavy tool a file, and no Prefect."""

import os

# Read by the libraries when they are first imported, so they are set here: no stage reports its use to anybody.
os.environ.setdefault("DO_NOT_TRACK", "1")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("DVC_NO_ANALYTICS", "1")
