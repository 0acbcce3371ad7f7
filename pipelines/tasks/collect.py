"""Rows of the sources become distinct examples; what is wrong with the others is noted."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from tqdm.auto import tqdm

from pipelines.contracts.prepared import Rejection, Row, Split
from pipelines.errors import PipelineError
from pipelines.sources.addresses import PypiSource, parse_source
from pipelines.sources.rows import Reader
from pipelines.tasks.keys.prepare import PrepareParams
from pipelines.tasks.reader import MISSING, RowReader
from reft.data import added_tokens

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


log = logging.getLogger(__name__)
BATCH = 1024  # texts given to the tokenizer at once
DUPLICATE = "the same text stands in an earlier row"
CONFLICT = "the same text has another answer in another row"
TOO_LONG = "prompt and completion have too many tokens"
TOKENLESS = "the prompt has no token"


@dataclass(frozen=True)
class Collected:
    """What the sources hold.

    Attributes:
        pools: the usable rows of each source, by the split that it is for; "train" is the main one.
        rejected: the rows that are left out.
        read: how many rows there are.
        joined_otherwise: usable rows whose prompt and completion have other tokens together than apart.
    """

    pools: dict[Split, list[Row]]
    rejected: list[Rejection]
    read: int
    joined_otherwise: int


def collect(config: PrepareParams, rows: RowReader, root: Path) -> Collected:
    """Read the sources, and keep of their rows those that can be used, each text once."""
    reader = Reader(config.format, config.columns, config.quoting, rows.columns)
    rejected: list[Rejection] = []
    pools: dict[Split, list[Row]] = {}
    read = joined_otherwise = 0
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
        distinct = _distinct(found, rejected)
        pools[split], otherwise = _measured(distinct, rows.tokenizer, config.max_tokens, rejected)
        joined_otherwise += otherwise
    if joined_otherwise:
        log.warning(
            "the base read text with other tokens than it gets here: of %d of %d usable rows, prompt and answer have "
            "others together than apart, as where the template ends in a space, which belongs to the answers",
            joined_otherwise, sum(map(len, pools.values())),
        )  # fmt: skip
    return Collected(pools, rejected, read, joined_otherwise)


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
) -> tuple[list[Row], int]:
    """Count tokens as training does, prompt and completion apart; reject what is too long, since nothing is cut.

    Where a row has choices of its own, the longest of them counts.

    Returns:
        The rows that are kept, and how many of them have other tokens where both are tokenised as one text.
    """
    words = {row.completion for row in rows}
    completions = {word: tokenizer(word, add_special_tokens=False)["input_ids"] for word in words}
    behind = added_tokens(tokenizer)[1]
    kept, otherwise = [], 0
    for start in tqdm(range(0, len(rows), BATCH), desc="measuring", unit="batch", delay=1.0):
        batch = rows[start : start + BATCH]
        prompts = tokenizer([row.prompt for row in batch])["input_ids"]
        wholes = tokenizer([row.prompt + row.completion for row in batch])["input_ids"]
        for row, prompt, whole in zip(batch, prompts, wholes, strict=True):
            ids = [*prompt[: len(prompt) - behind], *completions[row.completion]]
            longest = len(prompt) - behind + max(len(completions[row.completion]), *row.choice_tokens, 0)
            if len(prompt) == behind:
                rejected.append(row.reject(TOKENLESS, row.prompt))
            elif longest > max_tokens:
                rejected.append(row.reject(TOO_LONG, longest))
            else:
                otherwise += ids != whole[: len(whole) - behind]
                kept.append(replace(row, tokens=longest))
    return kept, otherwise
