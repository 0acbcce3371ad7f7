"""From pydantic's errors to lines that a person can act on."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Annotated, Any, Literal, get_args, get_origin

from pydantic import BaseModel, Discriminator, RootModel, Tag
from pydantic.fields import FieldInfo

from pipelines.params.address import hide_secrets

LONGEST = 120  # characters of a value
_KEY = "[key]"  # pydantic's last step to a mapping's key that is none of the known ones


def explain(error: dict[str, Any], model: type[BaseModel]) -> list[str]:
    """Return the broken rules that an error of ``model`` tells of, each with its key and value."""
    loc = error["loc"]
    if error["type"] == "extra_forbidden" or loc[-1:] == (_KEY,):
        *place, key = loc[:-1] if loc[-1] == _KEY else loc
        steps, known = _follow(model, tuple(place))
        near = difflib.get_close_matches(str(key), _keys(known), n=1, cutoff=0.0)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        return [f"{_dotted([*steps, str(key)])}: unknown key{hint}"]
    where = _dotted(_follow(model, loc)[0])
    if error["type"] == "missing":
        return [f"{where}: this key is missing; every key must be given: `reft upgrade` adds what is new in a release"]
    problems = error["msg"].removeprefix("Value error, ").splitlines()
    if isinstance(error["input"], Mapping):  # a rule between keys names the values that matter itself
        return [f"{where or 'params'}: {problem}" for problem in problems]
    got = _short(error["input"])
    return [f"{where or 'params'}: {p}" if "; got " in p else f"{where or 'params'}: {p}; got {got}" for p in problems]


def steps(loc: tuple[str | int, ...], model: type[BaseModel]) -> list[str]:
    """Return the keys of the file that lead to where an error of ``model`` is."""
    return _follow(model, loc)[0]


def _short(value: object) -> str:
    try:
        text = repr(value)
    except ValueError:  # an integer of more digits than Python prints
        text = f"{type(value).__name__} of too many digits"
    text = hide_secrets(text)
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 3]}..."


def _dotted(steps: list[str]) -> str:
    return ".".join(steps)


def _follow(model: type[BaseModel], loc: tuple[str | int, ...]) -> tuple[list[str], Any]:
    """The steps of ``loc`` that stand in the file, and the type at its end.

    A list's index and a mapping's own key are steps too; the tag by which pydantic tells which member of a union it
    took is not.
    """
    steps: list[str] = []
    found: Any = model
    for part in loc:
        tagged = _members(found)
        if part in tagged:
            found = tagged[part]
            continue
        steps.append(str(part))
        found = _step(found, part)
    return steps, found


def _step(found: Any, part: str | int) -> Any:
    """The type that stands at ``part`` in a value of the type ``found``."""
    plain = _plain(found)
    if isinstance(plain, type) and issubclass(plain, BaseModel):
        if issubclass(plain, RootModel):
            return _step(plain.model_fields["root"].annotation, part)
        field = next((f for name, f in plain.model_fields.items() if part in (name, f.alias)), None)
        # What Annotated said of the field, pydantic keeps beside its type.
        return None if field is None else Annotated[field.annotation, None, field.discriminator, *field.metadata]
    arguments = [argument for argument in get_args(plain) if argument is not type(None)]
    return arguments[-1] if arguments else None  # list[X], dict[key, X], X | None


def _members(found: Any) -> dict[object, Any]:
    """The members of a tagged union by their tags; none for any other type."""
    marks = get_args(found)[1:] if get_origin(found) is Annotated else ()
    marks = tuple(mark.discriminator if isinstance(mark, FieldInfo) else mark for mark in marks)  # a mapping's values
    if not any(isinstance(mark, Discriminator | str) for mark in marks):
        return {}
    members: dict[object, Any] = {}
    for member in get_args(_plain(found)) or (_plain(found),):
        tags = [mark.tag for mark in get_args(member)[1:] if isinstance(mark, Tag)]
        key = next((mark for mark in marks if isinstance(mark, str)), None)
        if not tags and key is not None:
            tags = list(get_args(_plain(member).model_fields[key].annotation))
        members |= dict.fromkeys(tags, member)
    return members


def _plain(found: Any) -> Any:
    """A type without what Annotated says of it; of an optional one, the type that it may be."""
    while get_origin(found) is Annotated:
        found = get_args(found)[0]
    arguments = get_args(found)
    if type(None) in arguments and len(arguments) == 2:
        return _plain(next(argument for argument in arguments if argument is not type(None)))
    return found


def _keys(found: Any) -> list[str]:
    """The keys that a section, or a mapping with few keys, may have."""
    plain = _plain(found)
    if isinstance(plain, type) and issubclass(plain, RootModel):
        return _keys(plain.model_fields["root"].annotation)
    if get_origin(plain) is dict and get_origin(get_args(plain)[0]) is Literal:
        return [str(key) for key in get_args(get_args(plain)[0])]
    section: dict[str, Any] = getattr(plain, "model_fields", {})
    return [field.alias or name for name, field in section.items()]
