"""The page of a search: who won and why, history, what matters, cost."""
