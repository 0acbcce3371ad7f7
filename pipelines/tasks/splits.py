"""Cutting usable rows into exact, stratified splits that share no text and no group."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from pipelines.contracts.prepared import SPLITS, Rejection, Row, Split
from pipelines.errors import PipelineError
from pipelines.tasks.keys.prepare import PrepareParams
from pipelines.tasks.rows import letters

SHOWN = 60  # characters of a rejected value in a message
CUT_ORDER: tuple[Split, ...] = ("test", "validation", "train")  # a text in two files stays where it measures


def split_order(seed: int, unit: str) -> str:
    """Return what a split is sorted by: a hash of the seed and the letters of the row's text, then the text itself.

    Near duplicates so stand side by side, and most of them in one split.
    """
    digest = hashlib.sha256(f"{seed}\x1f{near_key(unit)}".encode()).hexdigest()
    return f"{digest}\x1f{unit}"


def near_key(unit: str) -> str:
    """What near duplicates have in common: the letters of each of a row's texts."""
    return "\x1f".join(letters(text) for text in unit.split("\x1f"))


def near_duplicates(splits: Mapping[Split, Sequence[Row]]) -> dict[str, int]:
    """How many rows differ from another row in signs, marks and spacing alone, and how many from one of another split.

    They are kept: a sign may be all that matters (18 < 172). Where it does not, the second number is of rows that are
    measured on what was nearly trained on.
    """
    where: dict[str, list[Split]] = {}
    texts: dict[str, set[str]] = {}
    for split, rows in splits.items():
        for row in rows:
            near = near_key(row.key)
            where.setdefault(near, []).append(split)
            texts.setdefault(near, set()).add(row.key)
    found = [found for near, found in where.items() if len(texts[near]) > 1]
    return {"rows": sum(map(len, found)), "across_splits": sum(len(each) for each in found if len(set(each)) > 1)}


def stratified(rows: Iterable[Row], seed: int) -> list[Row]:
    """Order rows so that every stretch has the labels in about the proportion of the whole.

    A row's rank among its label's n rows, by :func:`split_order`, gives it the place (rank + 1/2) / n. Rows of one
    group, or of one text in several domains, stand side by side, as one, and are ranked among those with their labels.
    """
    units: dict[str, list[Row]] = {}
    for row in rows:
        units.setdefault(row.unit, []).append(row)
    by_label: dict[tuple[str, ...], list[tuple[str, list[Row]]]] = {}
    for unit, own in units.items():
        own.sort(key=_domain)
        by_label.setdefault(tuple(row.label for row in own), []).append((split_order(seed, unit), own))
    placed = []
    for ranked in by_label.values():
        ranked.sort(key=lambda pair: pair[0])
        placed += [((rank + 0.5) / len(ranked), order, own) for rank, (order, own) in enumerate(ranked)]
    return [row for *_, own in sorted(placed, key=lambda place: place[:2]) for row in own]


def _domain(row: Row) -> float:
    return 0.0 if row.domain is None else row.domain


def cut(
    pools: dict[Split, list[Row]], rejected: list[Rejection], config: PrepareParams, seed: int
) -> tuple[dict[Split, list[Row]], int]:
    """Cut the usable rows into splits of the wanted sizes.

    Args:
        pools: the rows of each source, by the split that it is for; the main source is "train", and gives the other
            splits too where they have no source of their own.
        rejected: gets the rows whose text or group stands in the source of another split as well (test comes before
            validation before train).
        config: the wanted sizes, and whether rows have domains.
        seed: of the order.

    Returns:
        The splits, and the number of usable rows that none of them took.

    Raises:
        PipelineError: if a source has too few rows, or training rows only one domain.
    """
    splits: dict[Split, list[Row]] = {}
    unused = 0
    for pool, rows in _disjoint(pools, rejected).items():
        names = [name for name in CUT_ORDER if name == pool or (pool == "train" and name not in pools)]
        sizes = [_wanted(config, name) for name in names]
        usable, rows = len(rows), stratified(rows, seed)
        for name, size in zip(names, sizes, strict=True):
            part, rest = rows[:size], rows[size:]
            if len(part) < size:
                raise _too_few(pool, names, sum(sizes), usable, rejected)
            splits[name] = sorted(part, key=lambda row: (split_order(seed, row.key), _domain(row)))
            shared = {row.unit for row in part}
            rows = [row for row in rest if row.unit not in shared]  # a group, or a text in several domains
            usable -= len(rest) - len(rows)
            unused += len(rest) - len(rows)
        unused += len(rows)
    if config.domain_column is not None:
        _check_domains(splits["train"], config.domain_column)
    return {split: splits[split] for split in SPLITS}, unused


def _disjoint(pools: dict[Split, list[Row]], rejected: list[Rejection]) -> dict[Split, list[Row]]:
    taken: dict[str, Split] = {}
    clean: dict[Split, list[Row]] = {}
    for split in CUT_ORDER:
        if split not in pools:
            continue
        clean[split] = []
        for row in pools[split]:
            other = taken.get(row.unit)
            if other is None:
                clean[split].append(row)
            else:
                rejected.append(row.reject(f"the text is also in the {other} source", row.prompt))
        taken.update({row.unit: split for row in clean[split]})
    return clean


def _wanted(config: PrepareParams, split: Split) -> int:
    return {"train": config.train_rows, "validation": config.validation_rows, "test": config.test_rows}[split]


def _too_few(pool: Split, names: list[Split], needed: int, usable: int, rejected: list[Rejection]) -> PipelineError:
    first = {rejection.reason: rejection for rejection in reversed(rejected)}
    told = [
        f"{count} because {reason} (as in {first[reason].file}:{first[reason].line}: {first[reason].value[:SHOWN]!r})"
        for reason, count in Counter(rejection.reason for rejection in rejected).most_common()
    ]
    return PipelineError(
        f"the {pool} source must give {needed} usable rows for {' + '.join(names)}",
        got=f"{usable}; rejected: {'; '.join(told) or 'none'}",
        do=("Correct what was rejected, or l" if rejected else "L")
        + "ower train_rows, validation_rows or test_rows, or add data.",
    )


def _check_domains(rows: list[Row], column: str) -> None:
    domains = {_domain(row) for row in rows}
    if len(domains) < 2:
        raise PipelineError(
            f"the train split must have at least two domains, numbers of the column {column}",
            got=f"{', '.join(map(str, domains))} only, in {len(rows)} rows",
            do="Give rows of more domains, or set prepare.domain_column: null.",
        )
