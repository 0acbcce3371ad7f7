"""What a stage leaves to the next: one typed reader and writer a file."""
