"""Tests of pipelines/diagnostics."""
