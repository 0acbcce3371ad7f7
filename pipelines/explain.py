"""From pydantic's errors to lines that a person can act on."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from typing import Any, get_args

from pydantic import BaseModel

LONGEST = 120  # characters of a value
_PASSWORD = re.compile(r"://[^/\s]*@")  # and the user's name before it


def explain(error: dict[str, Any], model: type[BaseModel]) -> list[str]:
    """Return the broken rules that an error of ``model`` tells of, each with its key and value."""
    where = ".".join(str(part) for part in error["loc"])
    if error["type"] == "extra_forbidden":
        known = _known_keys(model, error["loc"][:-1])
        near = difflib.get_close_matches(str(error["loc"][-1]), known, n=1, cutoff=0.0)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        return [f"{where}: unknown key{hint}"]
    if error["type"] == "missing":
        return [f"{where}: this key is missing; every key must be given"]
    problems = error["msg"].removeprefix("Value error, ").splitlines()
    if isinstance(error["input"], Mapping):  # a rule between keys names the values that matter itself
        return [f"{where or 'params'}: {problem}" for problem in problems]
    return [f"{where or 'params'}: {problem}; got {_short(error['input'])}" for problem in problems]


def _short(value: object) -> str:
    try:
        text = repr(value)
    except ValueError:  # an integer of more digits than Python prints
        text = f"{type(value).__name__} of too many digits"
    text = _PASSWORD.sub("://***@", text)
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 3]}..."


def _known_keys(model: type[BaseModel], loc: tuple[str | int, ...]) -> list[str]:
    """The keys of the section at ``loc``; a list's index and a mapping's own key are steps too."""
    found: Any = model
    for part in loc:
        if isinstance(found, type) and issubclass(found, BaseModel):
            fields = found.model_fields.items()
            found = next((f.annotation for name, f in fields if part in (name, f.alias)), None)
        else:
            found = get_args(found)[-1]  # list[X] or dict[key, X]
    section: dict[str, Any] = getattr(found, "model_fields", {})
    return [field.alias or name for name, field in section.items()]
