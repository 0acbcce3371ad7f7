"""Time and memory beside other libraries."""
