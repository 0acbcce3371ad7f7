"""reports/predictions.parquet: each test row with the answers of adapter and base, as the stage evaluate leaves them.

A row of the table is a test row, and :class:`Prediction` says what its columns are. What a system said stands in
columns that begin with its name: ``adapter``, ``adapter_score``, ``adapter_probabilities`` and so on.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.contracts.reading import Fields, checked, read_lines
from pipelines.files import whole_path

if TYPE_CHECKING:
    from pyarrow import Array, DataType, Table

SYSTEMS = ("adapter", "base")
SCORE = "score"
MAGIC = b"PAR1"  # with which Parquet begins; release 0.1 wrote JSON Lines
_TEXTS, _LISTS = ("id", "task", "prompt", "second", "label"), ("choices", "references")
_AS_JSON = {b"holds": b"JSON"}  # of a column whose values are of several kinds


@dataclass(frozen=True)
class Said:
    """What a system answered.

    Attributes:
        value: the answer.
        details: what else its task tells of an answer, by name.
        score: how good the answer is by itself, higher is better: 1 or 0 where answers are right or wrong, for a number
            how far it is off, below 0. None in a file of release 0.1.
    """

    value: str | float
    details: Mapping[str, object] = field(default_factory=dict)
    score: float | None = None


@dataclass(frozen=True)
class Prediction:
    """A test row, what is right of it, and both answers.

    Attributes:
        id: FILE:LINE of the source.
        prompt: what the models read.
        adapter: what the adapter on its base answered.
        base: what the frozen base answered.
        label: the name of the right answer, or of the slice that the row is counted in; "" for none.
        choices: the texts that could be answered, where they differ by row.
        references: the texts that count as right, where the answer is free.
        domain: the row's t, or None in data without a domain column.
        second: the other text of a pair, which an encoder read beside the prompt; "" for none.
        task: of a mixture, the name of the task that the row is of; "" where there is one task.
    """

    id: str
    prompt: str
    adapter: Said
    base: Said
    label: str = ""
    choices: tuple[str, ...] = ()
    references: tuple[str, ...] = ()
    domain: float | None = None
    second: str = ""
    task: str = ""


def write_predictions(path: Path, predictions: Sequence[Prediction]) -> None:
    """Write predictions.parquet; the same predictions give the same bytes."""
    from pyarrow import parquet  # takes a tenth of a second to import, and most readers of contracts do without

    with whole_path(path) as temporary:
        parquet.write_table(_table(predictions), temporary, compression="zstd")


def read_predictions(path: Path) -> list[Prediction]:
    """Read predictions.parquet, or the JSON Lines of release 0.1.

    Raises:
        PipelineError: if it is not what the stage writes.
    """
    if path.is_file():
        with path.open("rb") as file:
            if file.read(len(MAGIC)) == MAGIC:
                return checked(path, lambda: list(map(_read, _rows(path))), stage="evaluate")
    return read_lines(path, _read, stage="evaluate")


# --- a table of rows -------------------------------------------------------------------------------------------------


def _table(predictions: Sequence[Prediction]) -> Table:
    import pyarrow as pa

    columns: dict[str, tuple[Array, DataType, Mapping[bytes, bytes] | None]] = {}

    def add(name: str, values: Iterable[Any], kind: DataType) -> None:
        columns[name] = pa.array(values, kind), kind, None

    for name in _TEXTS:
        add(name, (getattr(row, name) for row in predictions), pa.string())
    for name in _LISTS:
        add(name, (list(getattr(row, name)) for row in predictions), pa.list_(pa.string()))
    add("domain", (row.domain for row in predictions), pa.float64())
    for system in SYSTEMS:
        said: list[Said] = [getattr(row, system) for row in predictions]
        columns[system] = _by_kind([one.value for one in said])
        add(f"{system}_{SCORE}", (one.score for one in said), pa.float64())
        for name in dict.fromkeys(name for one in said for name in one.details):
            columns[f"{system}_{name}"] = _by_kind([one.details.get(name) for one in said])
    fields = [pa.field(name, kind, metadata=metadata) for name, (_, kind, metadata) in columns.items()]
    return pa.table([array for array, _, _ in columns.values()], schema=pa.schema(fields))


def _by_kind(values: Sequence[object]) -> tuple[Array, DataType, Mapping[bytes, bytes] | None]:
    """A column of values that a task names; of several kinds, as those of a mixture's tasks may be, each as JSON."""
    import pyarrow as pa

    known = [value for value in values if value is not None]
    if all(isinstance(value, str) for value in known):
        kind = pa.string()
    elif all(_is_number(value) for value in known):
        kind = pa.int64() if all(isinstance(value, int) for value in known) else pa.float64()
    elif all(isinstance(value, list) and all(map(_is_number, value)) for value in known):
        kind = pa.list_(pa.float64())
    elif all(isinstance(value, Mapping) and all(map(_is_number, value.values())) for value in known):
        values, kind = [None if value is None else list(_items(value)) for value in values], _map_type()
    else:
        texts = [None if value is None else json.dumps(value, ensure_ascii=False, allow_nan=False) for value in values]
        return pa.array(texts, pa.string()), pa.string(), _AS_JSON
    return pa.array(values, kind), kind, None


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _items(value: object) -> Iterable[tuple[str, float]]:
    assert isinstance(value, Mapping)
    return value.items()


def _map_type() -> DataType:
    import pyarrow as pa

    return pa.map_(pa.string(), pa.float64())


# --- rows of a table -------------------------------------------------------------------------------------------------


def _rows(path: Path) -> Iterable[Fields]:
    """The table's rows; what a row has none of is left out."""
    from pyarrow import parquet

    try:
        table = parquet.read_table(path)
    except OSError as error:
        if error.errno is not None:
            raise
        raise ValueError(error) from None  # a damaged file, in pyarrow's words
    as_json = {column.name for column in table.schema if column.metadata == _AS_JSON}
    for row in table.to_pylist(maps_as_pydicts="strict"):
        known = {name: value for name, value in row.items() if value is not None}
        yield {name: json.loads(value) if name in as_json else value for name, value in known.items()}


def _read(raw: Fields) -> Prediction:
    both: dict[str, Said] = {}
    for system in SYSTEMS:
        own = {name.removeprefix(f"{system}_"): value for name, value in raw.items() if name.startswith(f"{system}_")}
        score = own.pop(SCORE, None)
        both[system] = Said(raw[system], own, score)
        raw = {name: value for name, value in raw.items() if not name.startswith(f"{system}_")}
    lists = {name: tuple(raw.get(name, ())) for name in _LISTS}
    return Prediction(**{**raw, **both, **lists})
