"""Task families, one a file: how a row becomes a prompt and a completion, and how an answer is read."""
