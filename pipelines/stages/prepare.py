"""The ``prepare`` stage: rows of a source become prompts, completions and three splits.

Every row that is left out is written down with its file, line and reason. A row's place in the splits follows from the
seed and its own text, never from the order of the file.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pipelines.bases.load import load_tokenizer
from pipelines.bases.store import store_path
from pipelines.contracts.base import BaseRecord, read_base
from pipelines.contracts.card import DataCard, Domains, SplitCard, write_card
from pipelines.contracts.identities import write_identities
from pipelines.contracts.prepared import (
    Row,
    Split,
    data_sha256,
    write_rejected,
    write_rows,
)
from pipelines.contracts.task import write_task
from pipelines.errors import PipelineError
from pipelines.files import sha256_file, whole_directory
from pipelines.params.whole import Params
from pipelines.search.fits_base import check_space
from pipelines.sources.addresses import FileSource, own_path, parse_source
from pipelines.tasks.collect import collect
from pipelines.tasks.family import family_of
from pipelines.tasks.keys.prepare import PrepareParams
from pipelines.tasks.reader import RowReader
from pipelines.tasks.row_store import row_store
from pipelines.tasks.splits import cut, near_duplicates

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
    _check_length(record, tokenizer, config.max_tokens)
    task = family_of(config)
    with row_store(out, params.seed) as store:
        collected = collect(config, RowReader(config, task, tokenizer, record.kind), root, store)
        splits, unused = cut(store, collected.pools, config)
        for split, rows in splits.items():
            task.check_split(split, rows)
        with whole_directory(out) as folder:
            for split, rows in splits.items():
                write_rows(folder, split, rows)
            write_identities(folder, splits)
            write_rejected(folder, store.rejected())
            write_task(folder, task.spec)
            content = data_sha256(folder)
        reasons = dict(sorted((reason, count) for reason, count, _ in store.reasons()))
        sizes = {split: len(rows) for split, rows in splits.items()}
        result = PrepareResult(collected.read, sizes, reasons, unused, content, collected.joined_otherwise)
        summaries = {split: _summary(rows, task.classes) for split, rows in splits.items()}
        write_card(card, _card(result, summaries, near_duplicates(store), config, root))
    log.info("%d rows read, %d rejected, %d unused; splits %s", result.read, sum(reasons.values()), unused, sizes)
    return result


def _check_length(record: BaseRecord, tokenizer: PreTrainedTokenizerBase, max_tokens: int) -> None:
    """Refuse rows that are longer than what the model can read, before any is."""
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(store_path(record), local_files_only=True).get_text_config()
    longest = getattr(config, "max_position_embeddings", None)
    if isinstance(longest, int) and record.kind == "encoder":  # RoBERTa has positions for the padding too
        longest = min(longest, tokenizer.model_max_length)
    if isinstance(longest, int) and max_tokens > longest > 0:
        raise PipelineError(
            f"prepare.max_tokens must not be above the {longest} tokens that the base reads",
            got=max_tokens,
            do="Lower prepare.max_tokens.",
        )


def _card(
    result: PrepareResult, splits: dict[Split, SplitCard], near: dict[str, int], config: PrepareParams, root: Path
) -> DataCard:
    parsed = parse_source(config.source)
    digest = sha256_file(own_path(parsed, root)) if isinstance(parsed, FileSource) else config.sha256
    return DataCard(
        source=config.source,
        source_sha256=digest,
        content_sha256=result.content_sha256,
        read=result.read,
        rejected=result.rejected,
        unused=result.unused,
        near_duplicates=near,
        joined_otherwise=result.joined_otherwise,
        splits=splits,
    )


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
