"""Where files come from: addresses, the package index, archives, rows of a data file."""
