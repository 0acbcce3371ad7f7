"""The edits: formulas, orthonormal rows, positions, layers, their configuration, hooks."""
