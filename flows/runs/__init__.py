"""What flow runs are made of: DVC, tasks, the artifacts that Prefect shows, the schedule."""
