"""The adapter directory of any method."""
