"""Kept for versions that release 0.1.0 registered: each holds a copy of its code, which imports this module."""

from pipelines.tasks.keys.template import template_fields

__all__ = ["template_fields"]
