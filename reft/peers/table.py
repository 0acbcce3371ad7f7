"""The one table of the rivals of ReFT, which loads no torch: a line a method, and all else reads it."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

TRAINED_IN: Mapping[str, str] = MappingProxyType(
    {
        "lora": "lora",
        "dora": "lora",
        "time_lora": "time_lora",
        "prompt": "virtual",
        "prefix": "virtual",
        "p_tuning_v2": "virtual",
        "full": "full",
        "lora_then_reft": "stacked",
    }
)
"""By a method's name, the module beside this one that trains it: its ``CONFIGS`` has the config that says the name."""

METHODS: tuple[str, ...] = tuple(TRAINED_IN)
"""The names of the rivals."""
