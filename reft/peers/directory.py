"""Kept for versions that release 0.1.0 registered: each holds a copy of its code, which imports this module."""

from reft.adapters.any_method import load_method, read_info

__all__ = ["load_method", "read_info"]
