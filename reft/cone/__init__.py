"""The cone: what can change when only edits train, and what of the rest is kept."""
