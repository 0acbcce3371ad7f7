"""Around a project: doctor, leftovers, estimates, the dashboard."""
