"""Parts of recipes in params.yaml: those of a rival of ReFT stand under the method, as ``lora: {rank: 8}``.

In code a part has one name, ``lora.rank``. In the file that name is a path of keys, as in section `method`, since DVC
takes a dot for the step to an inner key: `dvc exp run -S search.space.lora.rank=...` could not reach a key with a dot.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BeforeValidator

from pipelines.recipes.methods.table import RIVALS
from pipelines.sections import refuse


def by_part(raw: object) -> object:
    """Return a mapping of params.yaml by the names that parts have in code; what is none is left to other checks.

    Raises:
        ValueError: for a key with a dot, and for a method without a mapping of its parts.
    """
    if not isinstance(raw, Mapping):
        return raw
    refuse([_dotted_problem(key) for key in dotted(raw)])
    refuse([f"{key} must hold its parts, as {key}: {{PART: ...}}; got {raw[key]!r}; write it so" for key in _bare(raw)])
    found: dict[Any, Any] = {}
    for key, value in raw.items():
        found |= {f"{key}.{inner}": own for inner, own in value.items()} if key in RIVALS else {key: value}
    return found


def nested(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return values by parts as params.yaml has them."""
    found: dict[str, Any] = {}
    for part, value in values.items():
        method, dot, key = part.partition(".")
        if dot:
            found.setdefault(method, {})[key] = value
        else:
            found[part] = value
    return found


def dotted(raw: Mapping[Any, Any]) -> list[str]:
    """The keys by which parts of rivals were written up to release 0.1."""
    return [key for key in raw if isinstance(key, str) and "." in key and key.partition(".")[0] in RIVALS]


def _dotted_problem(key: str) -> str:
    method, _, own = key.partition(".")
    return (
        f"a part of {method} stands under {method}, as {method}: {{{own}: ...}}, where `dvc exp run -S` reaches it; "
        f"got the key {key}; `reft upgrade` rewrites it"
    )


def _bare(raw: Mapping[Any, Any]) -> list[str]:
    return [key for key in RIVALS if key in raw and not isinstance(raw[key], Mapping)]


BY_PART = BeforeValidator(by_part)
