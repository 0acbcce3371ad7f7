"""Tests of pipelines.judge."""
