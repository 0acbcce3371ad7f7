"""Prefect flows and the command line. Thin: what a stage does is in pipelines, whether it runs is DVC's to say."""

import os

# Prefect reads these when it is first imported, so they are set here.
os.environ.setdefault("DO_NOT_TRACK", "1")
os.environ.setdefault("DVC_NO_ANALYTICS", "1")
os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
os.environ.setdefault("PREFECT_RESULTS_DEFAULT_SERIALIZER", "json")  # the default one pickles
os.environ.setdefault("PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS", "120")  # its first start makes a database
