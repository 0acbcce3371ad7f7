"""What methods and searches are worth in accuracy, on the same rows."""
