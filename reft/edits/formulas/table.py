"""The formulas by the names of their methods."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from types import MappingProxyType

from reft.edits.interventions import Intervention
from reft.edits.methods.table import METHOD_NAMES


def _formula(name: str) -> type[Intervention]:
    formula: type[Intervention] = import_module(f"reft.edits.formulas.{name}").Formula
    return formula


METHODS: Mapping[str, type[Intervention]] = MappingProxyType({name: _formula(name) for name in METHOD_NAMES})
