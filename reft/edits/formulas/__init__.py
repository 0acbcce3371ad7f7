"""The formula of each edit, one file a method."""
