"""Kept for versions that release 0.1.0 registered: each holds a copy of its code, which imports this module."""

from pipelines.tasks.prompts import render_prompt

__all__ = ["render_prompt"]
