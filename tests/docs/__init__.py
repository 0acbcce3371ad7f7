"""The README and the pages of docs/: what they say can be run, is there, and is what the code says."""
