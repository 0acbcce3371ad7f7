"""Training loop, schedule, resume."""
