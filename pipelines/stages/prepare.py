"""The ``prepare`` stage: rows of a source become prompts, completions and three splits.

Every row that is left out is written down with its file, line and reason. A row's place in the splits follows from the
seed and its own text, never from the order of the file.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pipelines.bases.load import load_tokenizer
from pipelines.bases.store import store_path
from pipelines.contracts.base import BaseRecord, read_base
from pipelines.contracts.beside import NearRow, write_near, write_slices
from pipelines.contracts.card import DataCard, Domains, Overlap, SplitCard, TaskCard, write_card
from pipelines.contracts.identities import write_identities
from pipelines.contracts.prepared import (
    Row,
    Split,
    data_sha256,
    write_rejected,
    write_rows,
)
from pipelines.contracts.task import write_task
from pipelines.diagnostics.near_rows import near_rows
from pipelines.errors import PipelineError
from pipelines.files import whole_directory
from pipelines.params.whole import Params
from pipelines.search.fits_base import check_space
from pipelines.sources.addresses import FileSource, own_path, parse_source
from pipelines.sources.parts import source_sha256
from pipelines.tasks.assemble import Assembled, RowReading, assembled
from pipelines.tasks.keys.mixture import MixtureParams
from pipelines.tasks.keys.prepare import PrepareParams
from pipelines.tasks.splits import SHARED

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class PrepareResult:
    """What the stage did: rows read, rows of each split, rejections by reason, usable rows that no split took.

    ``joined_otherwise``: usable rows whose prompt and completion have other tokens together than apart.
    """

    read: int
    splits: dict[Split, int]
    rejected: dict[str, int]
    unused: int
    content_sha256: str
    joined_otherwise: int


def run(params: Params, *, root: Path, base: Path, out: Path, card: Path) -> PrepareResult:
    """Stage: read, check, split and write the data.

    Args:
        params: all of params.yaml; the section ``prepare`` and ``seed`` are used.
        root: the project's root.
        base: base.json, whose tokenizer measures the rows.
        out: the folder data/prepared.
        card: the data card, a JSON summary.

    Raises:
        PipelineError: for a source that cannot be read, too few usable rows, a split that the task cannot use, or
            training rows of one domain only where there is a domain column.
    """
    config = params.prepare
    record = read_base(base)
    check_space(params.recipe_space(), record)  # the search would find it too, but only after this stage's work
    tokenizer = load_tokenizer(record, root=root)
    for place, section in config.sections().items():
        _check_length(record, tokenizer, section.max_tokens, f"{place}.max_tokens")
    kept = tuple(params.evaluate.slice_columns())
    with assembled(config, RowReading(tokenizer, record.kind, root, params.seed, kept), out) as data:
        with whole_directory(out) as folder:
            near = near_rows(data.splits, folder)
            write_prepared(folder, data, near, sliced=bool(kept))
            content = data_sha256(folder)
        sizes, reasons = _sizes(data), dict(data.reasons)
        result = PrepareResult(data.read, sizes, reasons, data.unused, content, data.joined_otherwise)
        summaries = {split: _summary(rows, data.task.classes) for split, rows in data.splits.items()}
        found = _card(result, summaries, data, config, root)
        overlap = _overlap(near, reasons)
        write_card(card, replace(found, overlap=overlap))
    _warn(overlap, sizes)
    log.info("%d rows read, %d rejected, %d unused; splits %s", result.read, sum(reasons.values()), data.unused, sizes)
    return result


def write_prepared(folder: Path, data: Assembled, near: Sequence[NearRow], *, sliced: bool) -> None:
    """Write all that data/prepared holds.

    Args:
        folder: an empty folder.
        data: the rows in their splits.
        near: rows that are nearly one of another split.
        sliced: whether rows have values that figures are sliced by.
    """
    for split, rows in data.splits.items():
        write_rows(folder, split, rows)
    write_identities(folder, data.splits)
    write_rejected(folder, data.rejected)
    write_task(folder, data.task.spec)
    write_near(folder, near)
    if sliced:
        write_slices(folder, data.splits["test"])


def _sizes(data: Assembled) -> dict[Split, int]:
    return {split: len(rows) for split, rows in data.splits.items()}


def _overlap(near: Sequence[NearRow], reasons: Mapping[str, int]) -> Overlap:
    """How many rows stand in two splits' sources, and how many are near a row of another split."""
    shared = sum(count for reason, count in reasons.items() if SHARED.fullmatch(reason))
    counts = Counter((row.split, row.other_split) for row in near)
    return Overlap(
        left_out=shared,
        test_near_train=counts["test", "train"],
        test_near_validation=counts["test", "validation"],
        validation_near_train=counts["validation", "train"],
    )


def _warn(overlap: Overlap, sizes: Mapping[Split, int]) -> None:
    if overlap.left_out:
        log.warning(
            "%d rows stand in the sources of two splits and are left out of the one that is learned from",
            overlap.left_out,
        )
    if overlap.test_near_train:
        log.warning(
            "%d of %d test rows are nearly the same as a training row (near.jsonl beside the splits names both); "
            "stage evaluate says what the figure is without them",
            overlap.test_near_train, sizes["test"],
        )  # fmt: skip


def _check_length(record: BaseRecord, tokenizer: PreTrainedTokenizerBase, max_tokens: int, key: str) -> None:
    """Refuse rows that are longer than what the model can read, before any is."""
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(store_path(record), local_files_only=True).get_text_config()
    longest = getattr(config, "max_position_embeddings", None)
    if isinstance(longest, int) and record.kind == "encoder":  # RoBERTa has positions for the padding too
        longest = min(longest, tokenizer.model_max_length)
    if isinstance(longest, int) and max_tokens > longest > 0:
        raise PipelineError(
            f"{key} must not be above the {longest} tokens that the base reads", got=max_tokens, do=f"Lower {key}."
        )


def _card(
    result: PrepareResult,
    splits: dict[Split, SplitCard],
    data: Assembled,
    config: PrepareParams | MixtureParams,
    root: Path,
) -> DataCard:
    parts = config.tasks if isinstance(config, MixtureParams) else {}
    return DataCard(
        source=config.source,
        source_sha256=None if isinstance(config, MixtureParams) else _source_sha256(config, root),
        content_sha256=result.content_sha256,
        read=result.read,
        rejected=result.rejected,
        unused=result.unused,
        near_duplicates=dict(data.near_duplicates),
        joined_otherwise=result.joined_otherwise,
        splits=splits,
        tasks={name: _task_card(data.parts[name], section, root) for name, section in parts.items()},
    )


def _task_card(part: Assembled, section: PrepareParams, root: Path) -> TaskCard:
    return TaskCard(
        source=section.source,
        source_sha256=_source_sha256(section, root),
        read=part.read,
        rejected=sum(part.reasons.values()),
        unused=part.unused,
        rows=_sizes(part),
    )


def _source_sha256(config: PrepareParams, root: Path) -> str | None:
    parsed = parse_source(config.source)
    return source_sha256(own_path(parsed, root)) if isinstance(parsed, FileSource) else config.sha256


def _summary(rows: Sequence[Row], classes: Sequence[str]) -> SplitCard:
    labels: Counter[str] = Counter()
    tokens = np.zeros(len(rows), np.int64)
    domains: set[float] = set()
    for place, row in enumerate(rows):  # once: they are read from the disk
        labels[row.label] += 1
        tokens[place] = row.tokens
        if row.domain is not None:
            domains.add(row.domain)
    quantiles = {f"p{q}": round(float(np.percentile(tokens, q)), 1) for q in (50, 90, 99)}
    return SplitCard(
        rows=len(rows),
        labels={label: labels[label] for label in classes or sorted(labels) if label},
        tokens={**quantiles, "max": int(tokens.max())},
        domain=Domains(min(domains), max(domains), len(domains)) if domains else None,
    )
