"""The splits that are cut on the disk beside the same rules written out over lists, on random rows of every kind."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from pipelines.contracts.prepared import SPLITS, Rejection, Row, Split
from pipelines.errors import PipelineError
from pipelines.tasks.collect import CONFLICT, DUPLICATE, distinct
from pipelines.tasks.keys.prepare import PrepareParams
from pipelines.tasks.row_store import row_store
from pipelines.tasks.rows import near_key, split_digest
from pipelines.tasks.splits import CUT_ORDER, cut, near_duplicates

SIZES: dict[Split, int] = {"train": 40, "validation": 10, "test": 15}


def made(rng: random.Random, source: str, count: int, *, domains: bool, groups: bool) -> list[Row]:
    """Rows with texts that come again, in other cases and signs, with other answers and in other domains."""
    found = []
    for line in range(1, count + 1):
        label = rng.choice(("a", "b", "b", "größe"))
        found.append(
            Row(
                id=f"{source}:{line}",
                prompt=f"prompt {line}",
                completion=f" {label}" if rng.random() < 0.97 else " other",
                label=label,
                domain=rng.choice((None, -1.0, 0.0, 2.5)) if domains else None,
                group=f"g{rng.randrange(count // 3)}" if groups and rng.random() < 0.7 else None,
                key=f"{rng.choice('<>')} text {rng.randrange(count)}\x1fé{rng.choice('!?')}",
            )
        )
    return found


def told(rows: list[Row], rejected: list[Rejection]) -> list[Row]:
    """Rule of distinct texts: the first row of a text in a domain, none of a text with two answers."""
    answers: dict[Any, dict[str, str]] = {}
    for row in rows:
        answers.setdefault((row.key, row.domain), {})[row.completion] = row.label or row.completion.strip()
    first: dict[Any, Row] = {}
    for row in rows:
        same = row.key, row.domain
        if len(answers[same]) > 1:
            rejected.append(row.reject(CONFLICT, ", ".join(sorted(answers[same].values()))))
        elif same in first:
            rejected.append(row.reject(DUPLICATE, first[same].id))
        else:
            first[same] = row
    return list(first.values())


def domain_of(row: Row) -> float:
    return 0.0 if row.domain is None else row.domain


def stratified(rows: list[Row], seed: int) -> list[Row]:
    """Rule of the order: a unit's rank among the n with its labels gives it the place (rank + 1/2) / n."""
    units: dict[str, list[Row]] = {}
    for row in rows:
        units.setdefault(row.unit, []).append(row)
    by_label: dict[tuple[str, ...], list[tuple[tuple[bytes, str], list[Row]]]] = {}
    for unit, own in units.items():
        own.sort(key=domain_of)
        by_label.setdefault(tuple(row.label for row in own), []).append(((split_digest(seed, unit), unit), own))
    placed = []
    for ranked in by_label.values():
        ranked.sort(key=lambda pair: pair[0])
        placed += [((rank + 0.5) / len(ranked), order, own) for rank, (order, own) in enumerate(ranked)]
    return [row for *_, own in sorted(placed, key=lambda place: place[:2]) for row in own]


def by_lists(pools: dict[Split, list[Row]], seed: int) -> tuple[dict[Split, list[Row]] | None, int, list[Rejection]]:
    """The splits, None if there are too few rows; how many rows are left; what is rejected."""
    rejected: list[Rejection] = []
    usable = {pool: told(rows, rejected) for pool, rows in pools.items()}
    taken: dict[str, Split] = {}
    splits: dict[Split, list[Row]] = {}
    unused = 0
    for pool in (split for split in CUT_ORDER if split in pools):
        clean = []
        for row in usable[pool]:
            if (other := taken.get(row.unit)) is None:
                clean.append(row)
            else:
                rejected.append(row.reject(f"the text is also in the {other} source", row.prompt))
        taken |= {row.unit: pool for row in clean}
        rows = stratified(clean, seed)
        for name in (split for split in CUT_ORDER if split == pool or (pool == "train" and split not in pools)):
            part, rest = rows[: SIZES[name]], rows[SIZES[name] :]
            if len(part) < SIZES[name]:
                return None, unused, rejected
            splits[name] = sorted(part, key=lambda row: (split_digest(seed, row.key), row.key, domain_of(row)))
            shared = {row.unit for row in part}
            rows = [row for row in rest if row.unit not in shared]
            unused += len(rest) - len(rows)
        unused += len(rows)
    return {split: splits[split] for split in SPLITS}, unused, rejected


def near(splits: dict[Split, list[Row]]) -> dict[str, int]:
    where: dict[str, list[tuple[Split, str]]] = {}
    for split, rows in splits.items():
        for row in rows:
            where.setdefault(near_key(row.key), []).append((split, row.key))
    found = [each for each in where.values() if len({key for _, key in each}) > 1]
    across = sum(len(each) for each in found if len({split for split, _ in each}) > 1)
    return {"rows": sum(map(len, found)), "across_splits": across}


@pytest.mark.parametrize("seed", range(30))
def test_splits_cut_on_the_disk_are_those_of_the_rules(seed: int, tmp_path: Path) -> None:
    rng = random.Random(seed)
    kinds = {"domains": seed % 2 == 1, "groups": seed % 3 == 0}
    pools: dict[Split, list[Row]] = {"train": made(rng, "train", rng.choice((80, 300)), **kinds)}
    if seed % 5 == 0:
        pools["validation"] = made(rng, "v", 60, **kinds)
    if seed % 4 == 0:
        pools["test"] = made(rng, "t", 90, **kinds)
    wanted, unused, rejected = by_lists(pools, seed)
    keys = SimpleNamespace(
        domain_column="d" if kinds["domains"] else None, group_column=None, growing=None,
        **{f"{n}_rows": s for n, s in SIZES.items()},
    )  # fmt: skip
    with row_store(tmp_path / "prepared", seed) as store:
        for pool, rows in pools.items():
            for row in rows:
                store.add(pool, row)
            store.flush()
            distinct(store, pool)
        if wanted is None:
            with pytest.raises(PipelineError, match=r"must give .* usable rows for"):
                cut(store, list(pools), cast(PrepareParams, keys))
            return
        found, left = cut(store, list(pools), cast(PrepareParams, keys))
        assert {split: list(rows) for split, rows in found.items()} == wanted
        assert left == unused
        assert list(store.rejected()) == sorted(rejected, key=lambda each: (each.file, each.line))
        assert {reason: count for reason, count, _ in store.reasons()} == Counter(each.reason for each in rejected)
        assert near_duplicates(store) == near(wanted)
        train = found["train"]
        assert (train[3], train[-1], train[2:5]) == (wanted["train"][3], wanted["train"][-1], wanted["train"][2:5])
    assert list(tmp_path.iterdir()) == []
