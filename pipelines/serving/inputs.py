"""What callers give to be answered: strings, objects, frames; each becomes rows with the template's columns, by name.

A row's values are then read as those of a data file are, so a number has in use the text that it had in training.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from pipelines.sources.raw_row import RawRow, plain
from pipelines.tasks.columns import Columns

FILE = "input"  # stands for the file in rows of a call


class InputError(ValueError):
    """An input that cannot be answered: the rule, the value and its place, what to do."""


def input_rows(given: object, columns: Columns, *, parsed: bool = False) -> list[RawRow]:
    """Read what was given; the columns that the prompt needs are chosen by name, and others are passed over.

    Args:
        given: one string or mapping, or a list, tuple or array of them; a mapping of columns, each a list of values;
            a frame; a series of the values of the only column. A string is the text of the only column, or, where
            there are several, a JSON object.
        columns: that the prompt needs.
        parsed: whether a frame was made of a file by somebody who did not know which of its columns are text.

    Raises:
        InputError: for anything else, or rows without a needed column.
    """
    if isinstance(given, pd.DataFrame):
        return _frame(given, columns, parsed)
    if isinstance(given, pd.Series):
        return _series(given, columns)
    if isinstance(given, Mapping):
        return _mapping(given, columns)
    if isinstance(given, np.ndarray):
        given = _array_values(given, "inputs") if given.ndim else [given.item()]
    if isinstance(given, str) or not isinstance(given, Sequence):
        given = [given]
    return [_row(place, value, columns) for place, value in enumerate(given)]


def _row(place: int, value: object, columns: Columns) -> RawRow:
    if isinstance(value, pd.Series):
        value = value.to_dict()
    value = _scalar(value)
    if isinstance(value, str) and len(columns.names) > 1:
        try:
            value = json.loads(value)
        except (ValueError, RecursionError) as error:
            raise _refused(columns, f"input {place}: {error}") from None
    if isinstance(value, Mapping):
        there = [name for name in columns.names if name in value]
        if not set(columns.needed) <= set(there):
            if columns.whole is None or columns.whole not in value:
                raise _refused(columns, f"input {place} with {_names(value)}")
            there = [name for name in (columns.whole, columns.domain) if name is not None and name in value]
        return RawRow(FILE, place, {name: plain(_scalar(value[name])) for name in there})
    if len(columns.names) > 1 or not (value is None or isinstance(value, str | int | float)):
        raise _refused(columns, f"input {place}: a {type(value).__name__}")
    return RawRow(FILE, place, {columns.names[0]: value})


def _mapping(given: Mapping[Any, object], columns: Columns) -> list[RawRow]:
    """One row, or columns of rows: then every needed column is a list, all of one length.

    A row's own choices may be a list too, so they alone make no columns of rows.
    """
    if columns.turns is not None and _is_conversation(given.get(columns.turns)):
        return [_row(0, given, columns)]
    lists: dict[str, Sequence[object]] = {}
    names = [name for name in columns.names if name in columns.needed or name in given]
    for name in names:
        value = given.get(name)
        if isinstance(value, pd.Series):
            value = value.tolist()
        elif isinstance(value, np.ndarray) and value.ndim:
            value = _array_values(value, name, number=name == columns.domain and name not in columns.texts)
        if isinstance(value, list | tuple):
            lists[name] = value
    if set(lists) <= set(columns.choices):
        return [_row(0, given, columns)]
    lengths = {name: len(values) for name, values in lists.items()}
    if len(lists) < len(names) or len(set(lengths.values())) > 1:
        raise InputError(
            f"columns of rows must all be there, each a list of one length: {', '.join(columns.names)}; "
            f"got {lengths or _names(given)}; give one object for each row instead"
        )
    return _table(lists, columns)


def _is_conversation(value: object) -> bool:
    """Whether a value is one conversation: a list or array of turns, and no list of such lists."""
    value = value.tolist() if isinstance(value, np.ndarray) else value
    return isinstance(value, list | tuple) and all(isinstance(turn, Mapping) for turn in value)


def _table(values: Mapping[str, Sequence[object]], columns: Columns) -> list[RawRow]:
    rows = zip(*values.values(), strict=True)
    return [_row(place, dict(zip(values, row, strict=True)), columns) for place, row in enumerate(rows)]


def _frame(frame: pd.DataFrame, columns: Columns, parsed: bool) -> list[RawRow]:
    titles = list(frame.columns)
    if columns.whole is not None and columns.whole in titles and not set(columns.needed) <= set(titles):
        columns = Columns((columns.whole,), columns.domain)
    names = [name for name in columns.names if name in columns.needed or name in titles]
    wrong = [name for name in names if titles.count(name) != 1]
    if wrong:
        raise InputError(
            f"a frame must have each of the columns {', '.join(map(repr, names))} once; "
            f"got {', '.join(map(repr, titles))}; name them as in training"
        )
    for name in (each for each in columns.texts if each in titles):
        _check_numbers(frame[name].to_numpy(), name)
        if parsed and frame[name].dtype.kind in "iufb":
            raise InputError(
                f"a number in a text must be as in training, where 010 and 10 are two texts; got a column {name!r} "
                "that was read as numbers; send JSON, with `inputs` as a list of objects whose values are strings"
            )
    values = {name: frame[name].tolist() for name in names}
    return _table(values, columns)


def _series(series: pd.Series, columns: Columns) -> list[RawRow]:
    if all(name in series.index for name in columns.needed):
        return [_row(0, series.to_dict(), columns)]  # a frame's row
    if len(columns.names) > 1 or series.name not in (None, columns.names[0]):
        raise _refused(columns, f"a series named {series.name!r}")
    _check_numbers(series.to_numpy(), columns.names[0])
    return [_row(place, value, columns) for place, value in enumerate(series.tolist())]


def _array_values(array: np.ndarray[Any, Any], name: str, *, number: bool = False) -> list[object]:
    if array.ndim != 1:
        raise InputError(f"an array of inputs must have one dimension; got {array.ndim} for {name}; give a list")
    if not number:
        _check_numbers(array, name)
    return list(array.tolist())


def _check_numbers(values: np.ndarray[Any, Any], name: str) -> None:
    """Refuse numbers that have lost the text they had in training.

    A column of numbers with one fraction or one gap makes 5.0 of every 5, in pandas and in numpy.
    """
    if values.dtype.kind == "f" and any(float(value).is_integer() for value in values):
        raise InputError(
            f"numbers in a text must be as in training, where 5 and 5.0 are two texts; got a column {name!r} of floats "
            "with whole numbers among them; give strings, or one object for each row"
        )


def _scalar(value: object) -> object:
    """A number or text of numpy as Python's own."""
    if isinstance(value, np.generic) or (isinstance(value, np.ndarray) and value.ndim == 0):
        return value.item()
    return None if value is pd.NA or value is pd.NaT else value


def _refused(columns: Columns, got: str) -> InputError:
    return InputError(f"each input must be {columns.said}; got {got[:200]}; name the columns as in training")


def _names(given: Mapping[Any, object]) -> str:
    return f"the columns {', '.join(map(repr, given))}" if given else "no column"
