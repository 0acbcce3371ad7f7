"""Rows of the sources become distinct examples; what is wrong with the others is noted."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from tqdm.auto import tqdm

from pipelines.contracts.prepared import Rejection, Row, Split
from pipelines.errors import PipelineError
from pipelines.sources.addresses import PypiSource, parse_source
from pipelines.sources.rows import Reader
from pipelines.tasks.keys.prepare import PrepareParams
from pipelines.tasks.reader import MISSING, RowReader

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


BATCH = 1024  # texts given to the tokenizer at once
DUPLICATE = "the same text stands in an earlier row"
CONFLICT = "the same text has another answer in another row"
TOO_LONG = "prompt and completion have too many tokens"
TOKENLESS = "the prompt has no token"


def collect(config: PrepareParams, rows: RowReader, root: Path) -> tuple[dict[Split, list[Row]], list[Rejection], int]:
    """Return the usable rows of each source by the split it is for ("train": the main one), rejections, rows read."""
    reader = Reader(config.format, config.columns, config.quoting, rows.columns)
    rejected: list[Rejection] = []
    pools: dict[Split, list[Row]] = {}
    read = 0
    for split, source, sha256 in _sources(config):
        found: list[Row] = []
        count, missing = 0, 0
        for raw in tqdm(reader.read(source, sha256, root=root), desc=f"reading {split}", unit=" rows", delay=1.0):
            count += 1
            outcome = rows.read(raw)
            if isinstance(outcome, Row):
                found.append(outcome)
            else:
                missing += outcome.reason == MISSING
                rejected.append(outcome)
        if count == 0 or missing == count:
            raise PipelineError(
                f"{source} must hold rows with the columns {', '.join(rows.columns)}",
                got="no row" if count == 0 else f"{count} rows, none with all of them",
                do="Check prepare.source, format, template and the columns that it names against the file.",
            )
        read += count
        pools[split] = _measured(_distinct(found, rejected), rows.tokenizer, config.max_tokens, rejected)
    return pools, rejected, read


def _sources(config: PrepareParams) -> list[tuple[Split, str, str | None]]:
    """Return (split, source, sha256) of each source, the main one first; params.py has checked that they agree."""
    sources: list[tuple[Split, str, str | None]] = [("train", config.source, config.sha256)]
    own: list[tuple[Split, str | None]] = [("validation", config.validation_source), ("test", config.test_source)]
    for split, source in own:
        if source is not None:  # of a pypi: source, all lie in the one distribution whose hash is given
            sha256 = config.sha256 if isinstance(parse_source(source), PypiSource) else None
            sources.append((split, source, sha256))
    return sources


def _distinct(rows: list[Row], rejected: list[Rejection]) -> list[Row]:
    """Keep the first row of each text in a domain, and none of a text that has two answers there."""
    answers: dict[tuple[str, float | None], dict[str, str]] = {}
    for row in rows:
        answers.setdefault((row.key, row.domain), {})[row.completion] = row.label or row.completion.strip()
    first: dict[tuple[str, float | None], Row] = {}
    for row in rows:
        same = row.key, row.domain
        if len(answers[same]) > 1:
            rejected.append(row.reject(CONFLICT, ", ".join(sorted(answers[same].values()))))
        elif same in first:
            rejected.append(row.reject(DUPLICATE, first[same].id))
        else:
            first[same] = row
    return list(first.values())


def _measured(
    rows: list[Row], tokenizer: PreTrainedTokenizerBase, max_tokens: int, rejected: list[Rejection]
) -> list[Row]:
    """Count tokens as training does, prompt and completion apart; reject what is too long, since nothing is cut."""
    words = {row.completion for row in rows}
    completions = {word: len(tokenizer(word, add_special_tokens=False)["input_ids"]) for word in words}
    kept = []
    for start in tqdm(range(0, len(rows), BATCH), desc="measuring", unit="batch", delay=1.0):
        batch = rows[start : start + BATCH]
        prompts = tokenizer([row.prompt for row in batch])["input_ids"]
        for row, ids in zip(batch, prompts, strict=True):
            tokens = len(ids) + completions[row.completion]
            if not ids:
                rejected.append(row.reject(TOKENLESS, row.prompt))
            elif tokens > max_tokens:
                rejected.append(row.reject(TOO_LONG, tokens))
            else:
                kept.append(replace(row, tokens=tokens))
    return kept
