"""Rows of the sources become distinct examples; what is wrong with the others is noted."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tqdm.auto import tqdm

from pipelines.contracts.prepared import Row, Split
from pipelines.errors import PipelineError
from pipelines.sources.addresses import PypiSource, parse_source
from pipelines.sources.rows import Reader
from pipelines.tasks.growth import place, reject_torn
from pipelines.tasks.keys.prepare import PrepareParams
from pipelines.tasks.reader import MISSING, RowReader
from pipelines.tasks.row_store import RowStore
from reft.data import added_tokens

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


log = logging.getLogger(__name__)
WORDS = 10_000  # completions whose tokens are remembered
DUPLICATE = "the same text stands in an earlier row"
CONFLICT = "the same text has another answer in another row"
TOO_LONG = "prompt and completion have too many tokens"
TOKENLESS = "the prompt has no token"


@dataclass(frozen=True)
class Collected:
    """What the sources hold; the rows themselves, usable and rejected, are in the store.

    Attributes:
        pools: the sources, by the split that each is for; "train" is the main one.
        read: how many rows there are.
        joined_otherwise: usable rows whose prompt and completion have other tokens together than apart.
    """

    pools: tuple[Split, ...]
    read: int
    joined_otherwise: int


def collect(config: PrepareParams, rows: RowReader, root: Path, store: RowStore) -> Collected:
    """Read the sources into the store, and keep of their rows those that can be used, each text once."""
    reader = Reader(config.format, config.columns, config.quoting, rows.columns)
    pools: list[Split] = []
    read = joined_otherwise = 0
    for split, source, sha256 in _sources(config):
        unseen = set(rows.kept)
        count, missing, grouped = 0, 0, config.group_column is None or config.group_column in config.made_columns()
        for raw in tqdm(reader.read(source, sha256, root=root), desc=f"reading {split}", unit=" rows", delay=1.0):
            grouped = grouped or config.group_column in raw.values
            unseen -= raw.values.keys()
            for outcome in rows.read_all(raw):
                count += 1
                if isinstance(outcome, Row):
                    store.add(split, outcome)
                else:
                    missing += outcome.reason == MISSING
                    store.note(outcome)
        store.flush()
        if count == 0 or missing == count:
            raise PipelineError(
                f"{source} must hold rows with the columns {', '.join(rows.columns)}",
                got="no row" if count == 0 else f"{count} rows, none with all of them",
                do="Check prepare.source, format, template and the columns that it names against the file.",
            )
        if not grouped:
            raise PipelineError(
                f"{source} must have rows with the column of group_column",
                got=f"{count} rows, none with {config.group_column!r}",
                do="Correct prepare.group_column, or set it to null.",
            )
        if unseen:
            raise PipelineError(
                f"{source} must have rows with the columns that evaluate.slices names",
                got=f"{count} rows, none with {', '.join(sorted(unseen))}",
                do="Correct evaluate.slices.",
            )
        read += count
        if config.growing is not None:
            place(store, split, config.growing)
            reject_torn(store, split)
        distinct(store, split, one_answer=config.one_answer())
        if rows.kind == "encoder":
            _measure_texts(store, split, rows.tokenizer, config.max_tokens)
        else:
            joined_otherwise += _measured(store, split, rows, config.max_tokens)
        pools.append(split)
    if joined_otherwise:
        log.warning(
            "the base read text with other tokens than it gets here: of %d of %d usable rows, prompt and answer have "
            "others together than apart, as where the template ends in a space, which belongs to the answers",
            joined_otherwise, sum(map(store.count, pools)),
        )  # fmt: skip
    return Collected(tuple(pools), read, joined_otherwise)


def _sources(config: PrepareParams) -> list[tuple[Split, str, str | None]]:
    """Return (split, source, sha256) of each source, the main one first; params.py has checked that they agree."""
    sources: list[tuple[Split, str, str | None]] = [("train", config.source, config.sha256)]
    own: list[tuple[Split, str | None]] = [("validation", config.validation_source), ("test", config.test_source)]
    for split, source in own:
        if source is not None:  # of a pypi: source, all lie in the one distribution whose hash is given
            sha256 = config.sha256 if isinstance(parse_source(source), PypiSource) else None
            sources.append((split, source, sha256))
    return sources


def distinct(store: RowStore, pool: Split, *, one_answer: bool = True) -> None:
    """Keep the first row of each text in a domain, and none of a text that has two answers there.

    Args:
        store: the rows.
        pool: those of one source.
        one_answer: false: a text may have several answers, and the first row of each of them is kept.
    """
    database = store.database
    database.execute("CREATE INDEX IF NOT EXISTS near ON rows (near)")
    database.execute("CREATE TEMP TABLE doubled (n INTEGER PRIMARY KEY, answers TEXT, first INTEGER)")
    several = (
        "SELECT near, key, domain FROM rows WHERE pool = ? AND kept "
        "GROUP BY near, key, domain HAVING count(DISTINCT completion) > 1"
    )
    of_one = "FROM rows WHERE near = ? AND key = ? AND domain IS ? AND pool = ? AND kept"
    for text in database.execute(several, (pool,)) if one_answer else ():
        answers: dict[str, str] = {}
        for completion, label in database.execute(f"SELECT completion, label {of_one} ORDER BY n", (*text, pool)):
            answers[completion] = json.loads(label) or json.loads(completion).strip()
        said = json.dumps(", ".join(sorted(answers.values())))
        database.execute(f"INSERT INTO doubled SELECT n, ?, NULL {of_one}", (said, *text, pool))
    database.execute(
        "INSERT INTO doubled SELECT n, NULL, first FROM "
        "(SELECT n, min(n) OVER (PARTITION BY near, key, domain, CASE WHEN ? THEN '' ELSE completion END) AS first "
        "FROM rows WHERE pool = ? AND kept) "
        "WHERE n > first AND n NOT IN (SELECT n FROM doubled)",
        (one_answer, pool),
    )
    told = "SELECT n, answers, first FROM doubled ORDER BY n"
    for number, answers_of_it, earlier in database.execute(told):
        row = store.row(number)
        if answers_of_it is None:
            store.note(row.reject(DUPLICATE, store.row(earlier).id), number)
        else:
            store.note(row.reject(CONFLICT, json.loads(answers_of_it)), number)
    database.execute("DROP TABLE doubled")


def _measured(store: RowStore, pool: Split, reader: RowReader, max_tokens: int) -> int:
    """Count tokens as training does, prompt and completion apart; reject what is too long, since nothing is cut.

    Where a row has choices of its own, the longest of them counts; and where the model answers in its own words, there
    must be room for the longest answer.

    Returns:
        How many of the rows that are kept have other tokens where both are tokenised as one text.
    """
    completions: dict[str, list[int]] = {}
    tokenizer, room = reader.tokenizer, reader.task.max_new_tokens
    behind = added_tokens(tokenizer)[1]
    otherwise = 0
    for batch in tqdm(store.kept(pool), desc="measuring", unit="batch", delay=1.0):
        if len(completions) > WORDS:
            completions.clear()
        for word in {row.completion for _, row in batch} - completions.keys():
            completions[word] = tokenizer(word, add_special_tokens=False)["input_ids"]
        prompts = tokenizer([row.prompt for _, row in batch])["input_ids"]
        wholes = tokenizer([row.prompt + row.completion for _, row in batch])["input_ids"]
        for (number, row), prompt, whole in zip(batch, prompts, wholes, strict=True):
            ids = [*prompt[: len(prompt) - behind], *completions[row.completion]]
            longest = len(prompt) - behind + max(len(completions[row.completion]), *row.choice_tokens, 0)
            if len(prompt) == behind:
                store.note(row.reject(TOKENLESS, row.prompt), number)
            elif max(longest, len(prompt) - behind + room) > max_tokens:
                store.note(row.reject(TOO_LONG, max(longest, len(prompt) - behind + room)), number)
            else:
                otherwise += ids != whole[: len(whole) - behind]
                store.measured(number, longest)
    return otherwise


def _measure_texts(store: RowStore, pool: Split, tokenizer: PreTrainedTokenizerBase, max_tokens: int) -> None:
    """Count the tokens of texts, or pairs of them, as an encoder reads them; reject what is too long."""
    for batch in tqdm(store.kept(pool), desc="measuring", unit="batch", delay=1.0):
        for number, row in batch:
            tokens = text_tokens(tokenizer, row.prompt, row.second)
            if tokens > max_tokens:
                store.note(row.reject(TOO_LONG, tokens), number)
            else:
                store.measured(number, tokens)


def text_tokens(tokenizer: PreTrainedTokenizerBase, text: str, second: str) -> int:
    """How many tokens an encoder reads of a text, or of a pair of texts, with the tokenizer's own."""
    return len(tokenizer(text, second or None)["input_ids"])
