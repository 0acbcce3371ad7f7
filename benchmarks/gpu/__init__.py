"""What is to be asked of an accelerator when one can be had: whether everything is right there, and how fast it is."""
