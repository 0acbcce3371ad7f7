"""Free answers inside a column of objects, as ``instances`` of instruction data: found, and read by a path."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

from pipelines.intake.columns import MOSTLY
from pipelines.intake.references import TITLES
from pipelines.sources.raw_row import RawRow


def inner_columns(rows: Sequence[RawRow]) -> tuple[str, ...]:
    """Paths into columns that hold an object, or a list of them, of whose names one is a reference's.

    ``instances.0.output`` is the output of the first instance; of a list the first object is read.
    """
    good = [row.values for row in rows if row.problem is None]
    return tuple(path for name in dict.fromkeys(name for row in good for name in row) for path in _paths(good, name))


def inner_doubts(rows: Sequence[RawRow], path: str) -> tuple[str, ...]:
    """What a person should look at where the answer is at a path: that it is there, and that others may stand beside.

    Args:
        rows: a sample of the file.
        path: of the answer.
    """
    name = path.partition(".")[0]
    values = [row.values.get(name) for row in rows if row.problem is None]
    several = sum(isinstance(value, list) and len(value) > 1 for value in values)
    doubt = f"the answer is inside {name}, as {path}"
    return (f"{doubt}; {several} rows have more there, which are not read" if several else doubt,)


def _paths(rows: Sequence[Mapping[str, object]], name: str) -> Iterator[str]:
    values = [row.get(name) for row in rows]
    for step, found in ((".0", [_first(value) for value in values]), ("", values)):
        objects = [each for each in found if isinstance(each, Mapping)]
        if objects and len(objects) >= MOSTLY * len(rows):
            keys = dict.fromkeys(str(key) for each in objects for key in each if "." not in str(key))
            if any(not {*re.split(r"[^a-z]+", key.lower())}.isdisjoint(TITLES) for key in keys):
                yield from (f"{name}{step}.{key}" for key in keys)


def _first(value: object) -> object:
    return value[0] if isinstance(value, list) and value else None
