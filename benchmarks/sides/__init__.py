"""What a comparison of libraries is made of: this one, the others, their rows and how they are timed."""
