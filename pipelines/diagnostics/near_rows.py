"""Near duplicates across splits: rows that are measured on what was nearly trained on.

Texts are compared by their runs of five characters, case and the width of spaces ignored: two are near where they share
four fifths of all that either has (the Jaccard index). MinHash (Broder 1997) finds candidates without comparing
every pair, and each is then compared itself, so that no row is named that is not near.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any

from pipelines.contracts.beside import NearRow
from pipelines.contracts.prepared import Row, Split

if TYPE_CHECKING:
    from datasketch import MinHash, MinHashLSH

SIMILAR = 0.8  # as Lee et al. 2022 take it
CHARACTERS = 5  # of a run; of words, a changed one would be five runs of a short text
BANDS, BAND = 25, 5  # so of pairs that share four fifths one in 20,000 is missed: (1 - 0.8^5)^25
BATCH = 256  # rows hashed at once
MEASURED: tuple[Split, ...] = ("test", "validation")
LEARNED_FROM: tuple[Split, ...] = ("validation", "train")


def near_rows(splits: Mapping[Split, Sequence[Row]]) -> list[NearRow]:
    """The rows of test and validation that are near a training row, and those of test that are near one of validation.

    Args:
        splits: the rows, with the keys that texts are compared by; read once each, and only those of test and
            validation are held.

    Returns:
        For each such row and split the most similar row there, in the order of the rows.
    """
    index = _Index()
    for split in MEASURED:
        for row, minhash in _hashed(splits[split]):
            index.add(split, row, minhash)
    found: dict[tuple[Split, str, Split], NearRow] = {}
    for other in LEARNED_FROM:
        for row, minhash in _hashed(splits[other]):
            for near in index.near(other, row, minhash):
                place = near.split, near.id, near.other_split
                if place not in found or near.similarity > found[place].similarity:
                    found[place] = near
    order = {name: number for number, name in enumerate(index.names)}
    return sorted(found.values(), key=lambda near: (order[near.split, near.id], near.other_split))


def similarity(one: frozenset[str], other: frozenset[str]) -> float:
    """The Jaccard index of two sets."""
    return len(one & other) / len(one | other)


def runs(text: str) -> frozenset[str]:
    """A text's runs of characters; of a shorter one itself."""
    return frozenset(text[place : place + CHARACTERS] for place in range(max(len(text) - CHARACTERS + 1, 1)))


class _Index:
    """The rows that are measured, to be found by what is like them."""

    def __init__(self) -> None:
        from datasketch import MinHashLSH

        self.names: list[tuple[Split, str]] = []
        self._texts: list[str] = []
        self._table: MinHashLSH = MinHashLSH(num_perm=BANDS * BAND, params=(BANDS, BAND))

    def add(self, split: Split, row: Row, minhash: MinHash) -> None:
        self._table.insert(len(self.names), minhash)
        self.names.append((split, row.id))
        self._texts.append(row.key)

    def near(self, split: Split, row: Row, minhash: MinHash) -> Iterator[NearRow]:
        """The rows of other splits that a row is near; of validation's, those of test."""
        own = runs(row.key)
        for place in self._table.query(minhash):
            theirs, name = self.names[place]
            if theirs == split:
                continue
            alike = similarity(own, runs(self._texts[place]))
            if alike >= SIMILAR:
                yield NearRow(theirs, name, split, row.id, round(alike, 4))


def _hashed(rows: Sequence[Row]) -> Iterator[tuple[Row, Any]]:
    from datasketch import MinHash

    every = iter(rows)
    while batch := list(islice(every, BATCH)):
        texts = [[run.encode("utf-8", "surrogatepass") for run in runs(row.key)] for row in batch]
        yield from zip(batch, MinHash.bulk(texts, num_perm=BANDS * BAND, hashfunc=zlib.crc32), strict=True)
