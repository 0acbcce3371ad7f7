"""Side by side with other people's code: what this project claims of speed and memory, runnable by anyone."""
