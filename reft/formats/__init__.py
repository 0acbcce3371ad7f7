"""Adapters of other libraries: read into this project's words, and written in theirs."""
