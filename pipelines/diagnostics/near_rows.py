"""Near duplicates across splits: rows that are measured on what was nearly trained on.

Texts are compared by their runs of five characters, case and the width of spaces ignored: two are near where they share
four fifths of all that either has (the Jaccard index). MinHash (Broder 1997) finds candidates without comparing
every pair: those with a band of hashes in common, and of these, as rows of one pattern are by the thousand, those with
about as many hashes in common as near ones have. Each that is left is compared itself, so that no row is named that is
not near.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from pipelines.contracts.beside import NearRow
from pipelines.contracts.prepared import Row, Split

SIMILAR = 0.8  # as Lee et al. 2022 take it
CHARACTERS = 5  # of a run; of words, a changed one would be five runs of a short text
BANDS, BAND = 25, 5  # so of pairs that share four fifths one in 20,000 is missed: (1 - 0.8^5)^25
HASHES = BANDS * BAND
ALIKE = 80  # hashes; pairs that share four fifths have 100 of 125 with a deviation of 4.5: one in 100,000 has less
BATCH = 256  # rows hashed at once
MEASURED: tuple[Split, ...] = ("test", "validation")
LEARNED_FROM: tuple[Split, ...] = ("validation", "train")
# What the hashes of a band are multiplied by, to make one number of them: powers of an odd one, modulo 2^64.
_POWERS = np.array([pow(0x9E3779B97F4A7C15, power, 1 << 64) for power in range(1, BAND + 1)], dtype=np.uint64)


def near_rows(splits: Mapping[Split, Sequence[Row]]) -> list[NearRow]:
    """The rows of test and validation that are near a training row, and those of test that are near one of validation.

    Args:
        splits: the rows, with the keys that texts are compared by; read once each. Of those of test and validation
            the keys are held, and 800 bytes each.

    Returns:
        For each such row and split the most similar row there, in the order of the rows.
    """
    index = _Index({split: splits[split] for split in MEASURED})
    found: dict[tuple[Split, str, Split], NearRow] = {}
    for other in LEARNED_FROM:
        for rows, hashes in _hashed(splits[other]):
            for near in index.near(other, rows, hashes):
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

    def __init__(self, splits: Mapping[Split, Sequence[Row]]) -> None:
        count = sum(map(len, splits.values()))
        self.names: list[tuple[Split, str]] = []
        self._texts: list[str] = []
        self._hashes = np.empty((count, HASHES), dtype=np.uint32)
        keys = np.empty((BANDS, count), dtype=np.uint64)
        for split, rows in splits.items():
            for batch, hashes in _hashed(rows):
                places = slice(len(self.names), len(self.names) + len(batch))
                self._hashes[places], keys[:, places] = hashes, _keys(hashes)
                self.names += [(split, row.id) for row in batch]
                self._texts += [row.key for row in batch]
        # Of each band the keys in order, and the row that each is of.
        self._rows = [np.argsort(band).astype(np.uint32) for band in keys]
        for band, order in zip(keys, self._rows, strict=True):
            band[:] = band[order]
        self._keys = keys

    def near(self, split: Split, rows: Sequence[Row], hashes: NDArray[np.uint32]) -> Iterator[NearRow]:
        """The rows of other splits that these rows are near; of validation's, those of test."""
        for row, own_hashes, places in zip(rows, hashes, self._with_a_band_of(hashes), strict=True):
            in_common = (self._hashes[places] == own_hashes).sum(axis=1)
            own = runs(row.key)
            for place in places[in_common >= ALIKE].tolist():
                theirs, name = self.names[place]
                if theirs == split:
                    continue
                alike = similarity(own, runs(self._texts[place]))
                if alike >= SIMILAR:
                    yield NearRow(theirs, name, split, row.id, round(alike, 4))

    def _with_a_band_of(self, hashes: NDArray[np.uint32]) -> Iterator[NDArray[np.uint32]]:
        """For each row of hashes: [rows, HASHES], the places of the measured rows with a band in common."""
        asked = list(zip(self._keys, _keys(hashes), strict=True))
        first = np.array([np.searchsorted(keys, wanted, "left") for keys, wanted in asked]).T.tolist()
        last = np.array([np.searchsorted(keys, wanted, "right") for keys, wanted in asked]).T.tolist()
        for begins, ends in zip(first, last, strict=True):
            spans = zip(self._rows, begins, ends, strict=True)
            found = [rows[begin:end] for rows, begin, end in spans if begin < end]
            yield np.unique(np.concatenate(found)) if found else np.empty(0, dtype=np.uint32)


def _keys(hashes: NDArray[np.uint32]) -> NDArray[np.uint64]:
    """One number for each band of hashes: [rows, HASHES] -> [BANDS, rows]; few that differ have the same."""
    bands = hashes.reshape(len(hashes), BANDS, BAND).astype(np.uint64)
    return (bands * _POWERS).sum(axis=2, dtype=np.uint64).T


def _hashed(rows: Sequence[Row]) -> Iterator[tuple[list[Row], NDArray[np.uint32]]]:
    """The rows in batches, with their hashes: [rows of the batch, HASHES]."""
    from datasketch import MinHash

    every = iter(rows)
    while batch := list(islice(every, BATCH)):
        texts = [[run.encode("utf-8", "surrogatepass") for run in runs(row.key)] for row in batch]
        found = MinHash.bulk(texts, num_perm=HASHES, hashfunc=zlib.crc32)
        yield batch, np.array([each.hashvalues for each in found], dtype=np.uint32)
