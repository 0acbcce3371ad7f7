"""What flow runs are made of: DVC, tasks, cards, the schedule."""
