"""What each edit is, one file a method: declared without torch, and listed in one table."""
