"""Tests of the method, on tiny random models."""
