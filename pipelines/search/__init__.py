"""The search: study, workers, trials, proposals, pruning, choice."""
