"""Kept for versions that release 0.1.0 registered: each holds a copy of its code, which imports this module."""

from pipelines.bases.load import load_base
from pipelines.contracts.base import read_base

__all__ = ["load_base", "read_base"]
