"""Looking after a project: doctor, files no longer needed, estimates of time, upgrades, the dashboard."""
