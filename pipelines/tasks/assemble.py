"""The rows of a project, assembled in a store on the disk: of one task, or of a mixture's."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.contracts.prepared import SPLITS, Rejection, Row, Split
from pipelines.errors import PipelineError
from pipelines.params.base import Kind
from pipelines.tasks.collect import Collected, collect
from pipelines.tasks.draw import MixedSplit, draw, reject_measured, shares
from pipelines.tasks.family import TaskFamily, family_of
from pipelines.tasks.keys.mixture import MixtureParams
from pipelines.tasks.keys.prepare import PrepareParams
from pipelines.tasks.reader import RowReader
from pipelines.tasks.row_store import RowStore, StoredSplit, row_store
from pipelines.tasks.splits import cut, near_duplicates

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class RowReading:
    """What rows are read with: tokenizer and kind of the base, the root, the seed of splits, and columns to be kept."""

    tokenizer: PreTrainedTokenizerBase
    kind: Kind
    root: Path
    seed: int
    kept: tuple[str, ...] = ()


@dataclass(frozen=True)
class Assembled:
    """Rows in their splits, and what became of the others.

    Attributes:
        task: of the rows.
        splits: the rows.
        rejected: those that cannot be used, by file and line.
        reasons: how many there are, by reason.
        read: how many rows the sources have.
        unused: usable rows that no split took.
        near_duplicates: see :func:`pipelines.tasks.splits.near_duplicates`; of a mixture the sums over its tasks.
        joined_otherwise: usable rows whose prompt and completion have other tokens together than apart.
        parts: the same of each task of a mixture, by its name.
    """

    task: TaskFamily[Any]
    splits: Mapping[Split, Sequence[Row]]
    rejected: Iterable[Rejection]
    reasons: Mapping[str, int]
    read: int
    unused: int
    near_duplicates: Mapping[str, int]
    joined_otherwise: int
    parts: Mapping[str, Assembled] = field(default_factory=dict)


@contextmanager
def assembled(config: PrepareParams | MixtureParams, reading: RowReading, out: Path) -> Iterator[Assembled]:
    """Read, check and split the rows; they are on the disk beside ``out`` for the time of the block.

    Raises:
        PipelineError: for a source that cannot be read, too few usable rows, or a split that the task cannot use.
    """
    with ExitStack() as stack:
        if not isinstance(config, MixtureParams):
            store = stack.enter_context(row_store(out, reading.seed))
            task = family_of(config)
            collected, unused = _split(config, task, reading, store)
            yield _of_store(task, store, collected, unused)
            return
        stores = {
            name: stack.enter_context(row_store(out.with_name(f"{out.name}-{name}"), reading.seed))
            for name in config.tasks
        }
        yield _mixed(config, reading, stores)


def _mixed(config: MixtureParams, reading: RowReading, stores: Mapping[str, RowStore]) -> Assembled:
    """Each task is split as it would be alone; then training rows are drawn of all."""
    task = family_of(config)
    made: dict[str, tuple[Collected, int]] = {}
    for name, section in config.tasks.items():
        try:
            made[name] = _split(section, task.parts()[name], reading, stores[name])
        except PipelineError as error:
            raise PipelineError(f"task {name}: {error.rule}", got=error.got, do=error.do) from None
    reject_measured(stores)
    there = {
        name: int(store.value("SELECT count(*) FROM rows WHERE split = 'train'")) for name, store in stores.items()
    }
    parts = {}
    for name, count in shares(config.train_rows, config.weights, there).items():
        left = draw(stores[name], name, count, reading.seed)
        collected, unused = made[name]
        parts[name] = _of_store(task.parts()[name], stores[name], collected, unused + left)
    reasons: Counter[str] = Counter()
    near: Counter[str] = Counter()
    for part in parts.values():
        reasons.update(part.reasons)
        near.update(part.near_duplicates)
    return Assembled(
        task=task,
        splits={split: MixedSplit(stores, split, reading.seed) for split in SPLITS},
        rejected=heapq.merge(*(part.rejected for part in parts.values()), key=lambda row: (row.file, row.line)),
        reasons=dict(sorted(reasons.items())),
        read=sum(part.read for part in parts.values()),
        unused=sum(part.unused for part in parts.values()),
        near_duplicates={name: near[name] for name in ("rows", "across_splits")},
        joined_otherwise=sum(part.joined_otherwise for part in parts.values()),
        parts=parts,
    )


def _split(config: PrepareParams, task: TaskFamily[Any], reading: RowReading, store: RowStore) -> tuple[Collected, int]:
    """What the sources of a task hold, and how many usable rows no split took."""
    reader = RowReader(config, task, reading.tokenizer, reading.kind, kept=reading.kept)
    collected = collect(config, reader, reading.root, store)
    _, unused = cut(store, collected.pools, config)
    return collected, unused


def _of_store(task: TaskFamily[Any], store: RowStore, collected: Collected, unused: int) -> Assembled:
    """What stands in a store.

    Raises:
        PipelineError: if the task cannot use a split.
    """
    splits = {split: StoredSplit(store, split) for split in SPLITS}
    for split, rows in splits.items():
        task.check_split(split, rows)
    return Assembled(
        task=task,
        splits=splits,
        rejected=store.rejected(),
        reasons=dict(sorted((reason, count) for reason, count, _ in store.reasons())),
        read=collected.read,
        unused=unused,
        near_duplicates=near_duplicates(store),
        joined_otherwise=collected.joined_otherwise,
    )
