"""The sides of a comparison: ours, the others', their rows and how they are timed."""
