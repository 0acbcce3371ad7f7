"""Continuous batching: prompts of several adapters that join and leave one running batch at any token."""
