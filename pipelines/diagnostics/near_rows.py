"""Near duplicates across splits: rows that are measured on what was nearly trained on.

Texts are compared by their runs of five characters, case and the width of spaces ignored: two are near where they share
four fifths of all that either has (the Jaccard index). MinHash (Broder 1997) finds candidates without comparing
every pair: those with a band of hashes in common, and of these, as rows of one pattern are by the thousand, those with
about as many hashes in common as near ones have. Each that is left is compared itself, so that no row is named that is
not near.

In a crowd, rows of one pattern by the hundred thousand, a row is compared with the most likely of it alone: what a row
costs has a bound, and near rows may be missed there, which is said.
"""

from __future__ import annotations

import logging
import tempfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import IO

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
PIECE = 4096  # runs hashed at once: 4 MB of hashes
# What a row costs in a crowd: with so many of its rows all hashes are compared, with so many the texts.
CANDIDATES, COMPARED = 2000, 32
MEASURED: tuple[Split, ...] = ("test", "validation")
LEARNED_FROM: tuple[Split, ...] = ("validation", "train")
# What the hashes of a band are multiplied by, to make one number of them: powers of an odd one, modulo 2^64.
_POWERS = np.array([pow(0x9E3779B97F4A7C15, power, 1 << 64) for power in range(1, BAND + 1)], dtype=np.uint64)


log = logging.getLogger(__name__)


def near_rows(splits: Mapping[Split, Sequence[Row]], folder: Path) -> list[NearRow]:
    """The rows of test and validation that are near a training row, and those of test that are near one of validation.

    Args:
        splits: the rows, with the keys that texts are compared by; read once each. Of those of test and validation
            800 bytes each are held.
        folder: on whose disk the keys of test and validation lie meanwhile.

    Returns:
        For each such row and split the most similar row there that it was compared with, in the order of the rows.
    """
    with tempfile.TemporaryFile(dir=folder) as file:
        index = _Index({split: splits[split] for split in MEASURED}, file)
        found: dict[tuple[Split, str, Split], NearRow] = {}
        for other in LEARNED_FROM:
            for rows, hashes in _hashed(splits[other]):
                for near in index.near(other, rows, hashes):
                    place = near.split, near.id, near.other_split
                    if place not in found or near.similarity > found[place].similarity:
                        found[place] = near
    if index.crowded:
        log.warning(
            "%d rows have a pattern in common with so many others that they were compared with the most likely alone; "
            "rows that are near them may be missing from near.jsonl",
            index.crowded,
        )
    order = {name: number for number, name in enumerate(index.names)}
    return sorted(found.values(), key=lambda near: (order[near.split, near.id], near.other_split))


def similarity(one: frozenset[str], other: frozenset[str]) -> float:
    """The Jaccard index of two sets."""
    return len(one & other) / len(one | other)


def runs(text: str) -> frozenset[str]:
    """A text's runs of characters; of a shorter one itself."""
    return frozenset(text[place : place + CHARACTERS] for place in range(max(len(text) - CHARACTERS + 1, 1)))


class _Index:
    """The rows that are measured, to be found by what is like them.

    ``crowded`` counts the rows that were asked about and not compared with all that are like them.
    """

    def __init__(self, splits: Mapping[Split, Sequence[Row]], file: IO[bytes]) -> None:
        count = sum(map(len, splits.values()))
        self.names: list[tuple[Split, str]] = []
        self.crowded = 0
        self._texts = _Texts(file)
        self._hashes = np.empty((count, HASHES), dtype=np.uint32)
        self._split = np.empty(count, dtype=np.uint8)  # the place in MEASURED
        keys = np.empty((BANDS, count), dtype=np.uint64)
        for split, rows in splits.items():
            for batch, hashes in _hashed(rows):
                places = slice(len(self.names), len(self.names) + len(batch))
                self._hashes[places], keys[:, places] = hashes, _keys(hashes)
                self._split[places] = MEASURED.index(split)
                self.names += [(split, row.id) for row in batch]
                for row in batch:
                    self._texts.add(row.key)
        # Of each band the keys in order, and the row that each is of.
        self._rows = [np.argsort(band).astype(np.uint32) for band in keys]
        for band, order in zip(keys, self._rows, strict=True):
            band[:] = band[order]
        self._keys = keys
        self._near = {split: np.zeros(count, dtype=bool) for split in LEARNED_FROM}  # what is known to be near one

    def near(self, split: Split, rows: Sequence[Row], hashes: NDArray[np.uint32]) -> Iterator[NearRow]:
        """The rows of other splits that these rows are near; of validation's, those of test."""
        own_split, known = MEASURED.index(split) if split in MEASURED else len(MEASURED), self._near[split]
        for row, own_hashes, (places, crowded) in zip(rows, hashes, self._with_a_band_of(hashes), strict=True):
            places = places[self._split[places] != own_split]
            in_common = (self._hashes[places] == own_hashes).sum(axis=1)
            alike = places[in_common >= ALIKE]
            if len(alike) > COMPARED:  # those of which nothing is known yet, the most alike first
                places, in_common = places[~known[places]], in_common[~known[places]]
                likely = np.argsort(-in_common, kind="stable")[: (in_common >= ALIKE).sum()]
                alike, crowded = places[likely[:COMPARED]], True
            self.crowded += crowded
            own = runs(row.key)
            for place in alike.tolist():
                found = similarity(own, runs(self._texts[place]))
                if found >= SIMILAR:
                    known[place] = True
                    theirs, name = self.names[place]
                    yield NearRow(theirs, name, split, row.id, round(found, 4))

    def _with_a_band_of(self, hashes: NDArray[np.uint32]) -> Iterator[tuple[NDArray[np.uint32], bool]]:
        """For each row of hashes: [rows, HASHES], the measured rows with a band in common, and whether that is a crowd.

        Of a crowd those are taken whose band has the fewest: rows that are near each other share more bands than those
        of their pattern.
        """
        asked = list(zip(self._keys, _keys(hashes), strict=True))
        first = np.array([np.searchsorted(keys, wanted, "left") for keys, wanted in asked]).T
        last = np.array([np.searchsorted(keys, wanted, "right") for keys, wanted in asked]).T
        for begins, counts in zip(first, last - first, strict=True):
            crowded = bool(counts.sum() > CANDIDATES)
            if crowded:
                fewest, most = np.argsort(counts, kind="stable"), counts.copy()
                most[fewest] = np.clip(CANDIDATES - (np.cumsum(counts[fewest]) - counts[fewest]), 0, counts[fewest])
                counts = most
            bands = np.flatnonzero(counts).tolist()
            found = [self._rows[band][begins[band] : begins[band] + counts[band]] for band in bands]
            yield np.unique(np.concatenate(found)) if found else np.empty(0, dtype=np.uint32), crowded


class _Texts:
    """Texts in a file, by their places."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file, self._ends = file, [0]

    def add(self, text: str) -> None:
        self._ends.append(self._ends[-1] + self._file.write(text.encode("utf-8", "surrogatepass")))

    def __getitem__(self, place: int) -> str:
        begin, end = self._ends[place : place + 2]
        self._file.seek(begin)
        return self._file.read(end - begin).decode("utf-8", "surrogatepass")


def _keys(hashes: NDArray[np.uint32]) -> NDArray[np.uint64]:
    """One number for each band of hashes: [rows, HASHES] -> [BANDS, rows]; few that differ have the same."""
    bands = hashes.reshape(len(hashes), BANDS, BAND).astype(np.uint64)
    return (bands * _POWERS).sum(axis=2, dtype=np.uint64).T


def _hashed(rows: Sequence[Row]) -> Iterator[tuple[list[Row], NDArray[np.uint32]]]:
    """The rows in batches, with their hashes: [rows of the batch, HASHES]."""
    from datasketch import MinHash

    every, nothing = iter(rows), MinHash(num_perm=HASHES, hashfunc=zlib.crc32)
    while batch := list(islice(every, BATCH)):
        hashes = np.empty((len(batch), HASHES), dtype=np.uint32)
        for row, own in zip(batch, hashes, strict=True):
            found, left = nothing.copy(), iter(runs(row.key))
            while piece := [run.encode("utf-8", "surrogatepass") for run in islice(left, PIECE)]:
                found.update_batch(piece)
            own[:] = found.hashvalues
        yield batch, hashes
