"""Where a small network and the language model hold a variable."""
