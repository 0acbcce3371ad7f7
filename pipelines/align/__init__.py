"""Causal maps: in which layer, at which token and in how many dimensions a model holds a variable."""
