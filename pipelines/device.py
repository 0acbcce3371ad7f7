"""Kept for versions that release 0.1.0 registered: each holds a copy of its code, which imports this module."""

from pipelines.runtime.device import resolve_device

__all__ = ["resolve_device"]
