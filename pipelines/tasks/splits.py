"""Cutting usable rows into splits that share no text and no group: exact and stratified ones, or ones that grow."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Generator, Iterator, Mapping, Sequence

from pipelines.contracts.prepared import SPLITS, Row, Split
from pipelines.errors import PipelineError
from pipelines.tasks.growth import check_sizes
from pipelines.tasks.keys.prepare import PrepareParams
from pipelines.tasks.row_store import RowStore, StoredSplit

SHARED = re.compile(r"the (text|group) is also in the \w+ (source|split of .+)")  # reasons: here, and of mixtures
SHOWN = 60  # characters of a rejected value in a message
CUT_ORDER: tuple[Split, ...] = ("test", "validation", "train")  # a text in two files stays where it measures
_SHARED = "SELECT n FROM rows WHERE pool = ? AND kept AND EXISTS (SELECT 1 FROM rows AS other WHERE other.pool = ? AND "
_SAME_UNIT = _SHARED + "other.kept AND other.near_unit = rows.near_unit AND other.unit = rows.unit) ORDER BY n"
_SAME_TEXT = _SHARED + "other.kept AND other.near = rows.near AND other.key = rows.key) ORDER BY n"
_UNITS = """
CREATE TEMP TABLE units (number INTEGER PRIMARY KEY, unit BLOB, labels TEXT, rank INTEGER);
CREATE TEMP TABLE labels (labels TEXT PRIMARY KEY, units INTEGER);
"""


def near_duplicates(store: RowStore) -> dict[str, int]:
    """How many rows differ from another row in signs, marks and spacing alone, and how many from one of another split.

    They are kept: a sign may be all that matters (18 < 172). Where it does not, the second number is of rows that are
    measured on what was nearly trained on.
    """
    rows, across = store.database.execute(
        "SELECT ifnull(sum(rows), 0), ifnull(sum(rows * (splits > 1)), 0) FROM "
        "(SELECT count(*) AS rows, count(DISTINCT split) AS splits FROM rows WHERE split IS NOT NULL "
        "GROUP BY near HAVING count(DISTINCT key) > 1)"
    ).fetchone()
    return {"rows": rows, "across_splits": across}


def cut(store: RowStore, pools: Sequence[Split], config: PrepareParams) -> tuple[Mapping[Split, Sequence[Row]], int]:
    """Cut the usable rows into splits of the wanted sizes; with ``growing``, each row has its split already.

    Rows whose text or group stands in the source of another split as well are rejected: test comes before validation
    before train.

    Args:
        store: the rows of the sources.
        pools: the sources, by the split that each is for; the main source is "train", and gives the other splits too
            where they have no source of their own.
        config: the wanted sizes, and whether rows have domains.

    Returns:
        The splits, and the number of usable rows that none of them took.

    Raises:
        PipelineError: if a source has too few rows, or training rows only one domain.
    """
    ordered = [pool for pool in CUT_ORDER if pool in pools]
    for place, pool in enumerate(ordered):
        _reject_shared(store, pool, ordered[:place], "text" if config.group_column is None else "group", _SAME_UNIT)
        if config.growing is not None:  # of two groups, too: where rows grow, texts and groups may come to meet
            _reject_shared(store, pool, ordered[:place], "text", _SAME_TEXT)
    if config.growing is not None:
        check_sizes(store, pools, config)
        unused = 0
    else:
        unused = sum(_cut_pool(store, pool, _sizes(config, pool, pools)) for pool in ordered)
    if config.domain_column is not None:
        _check_domains(store, config.domain_column)
    return {split: StoredSplit(store, split) for split in SPLITS}, unused


def _reject_shared(store: RowStore, pool: Split, earlier: Sequence[Split], what: str, shared: str) -> None:
    for other in earlier:
        store.database.execute("CREATE INDEX IF NOT EXISTS near ON rows (near)")
        store.database.execute("CREATE INDEX IF NOT EXISTS near_unit ON rows (near_unit)")
        store.database.execute(f"CREATE TEMP TABLE shared AS {shared}", (pool, other))
        for (number,) in store.database.execute("SELECT n FROM shared ORDER BY rowid"):
            row = store.row(number)
            store.note(row.reject(f"the {what} is also in the {other} source", row.prompt), number)
        store.database.execute("DROP TABLE shared")


def _cut_pool(store: RowStore, pool: Split, sizes: Mapping[Split, int]) -> int:
    """Give a source's rows to splits, in order; return how many are left.

    What shares a unit with the last row of a split is left too: it may be in no other.
    """
    _order_units(store, pool)
    usable = store.count(pool)
    rows = _stratified(store, pool)
    held = next(rows, None)
    taken: list[tuple[Split, int]] = []
    for name, size in sizes.items():
        last = None
        for _ in range(size):
            if held is None:
                raise _too_few(store, pool, sizes, usable)
            number, last = held
            taken.append((name, number))
            held = next(rows, None)
        while held is not None and held[1] == last:
            usable -= 1
            held = next(rows, None)
    rows.close()
    store.database.executemany("UPDATE rows SET split = ? WHERE n = ?", taken)
    store.database.executescript("DROP TABLE units; DROP TABLE labels;")
    return store.count(pool) - len(taken)


def _order_units(store: RowStore, pool: Split) -> None:
    """Rank a source's units, groups or texts, among those with their labels."""
    database = store.database
    database.executescript(_UNITS)
    rows = "SELECT unit, label FROM rows WHERE pool = ? AND kept ORDER BY near_unit, unit, ifnull(domain, 0.0), n"
    ranks: dict[str, int] = {}

    def ranked() -> Iterator[tuple[bytes, str, int]]:
        for unit, own in itertools.groupby(database.execute(rows, (pool,)), key=lambda row: bytes(row[0])):
            labels = json.dumps([json.loads(label) for _, label in own])
            ranks[labels] = ranks.get(labels, -1) + 1
            yield unit, labels, ranks[labels]

    database.executemany("INSERT INTO units (unit, labels, rank) VALUES (?, ?, ?)", ranked())
    database.executemany("INSERT INTO labels VALUES (?, ?)", ((labels, rank + 1) for labels, rank in ranks.items()))
    database.execute("CREATE INDEX units_unit ON units (unit)")


def _stratified(store: RowStore, pool: Split) -> Generator[tuple[int, int], None, None]:
    """Yield row and unit numbers so that every stretch has the labels in about the proportion of the whole.

    A unit's rank among the n with its labels gives it the place (rank + 1/2) / n. Rows of one group, or of one text in
    several domains, stand side by side.
    """
    query = (
        "SELECT rows.n, units.number FROM units JOIN labels USING (labels) JOIN rows ON rows.unit = units.unit "
        "WHERE rows.pool = ? AND rows.kept ORDER BY (rank + 0.5) / labels.units, units.number, "
        "ifnull(rows.domain, 0.0), rows.n"
    )
    yield from store.database.execute(query, (pool,))


def _sizes(config: PrepareParams, pool: Split, pools: Sequence[Split]) -> dict[Split, int]:
    """The wanted sizes of the splits that a source gives, in the order that they are cut in."""
    wanted: dict[Split, int] = {
        "test": config.test_rows, "validation": config.validation_rows, "train": config.train_rows
    }  # fmt: skip
    return {name: wanted[name] for name in CUT_ORDER if name == pool or (pool == "train" and name not in pools)}


def _too_few(store: RowStore, pool: Split, sizes: Mapping[Split, int], usable: int) -> PipelineError:
    told = [
        f"{count} because {reason} (as in {first.file}:{first.line}: {first.value[:SHOWN]!r})"
        for reason, count, first in store.reasons()
    ]
    return PipelineError(
        f"the {pool} source must give {sum(sizes.values())} usable rows for {' + '.join(sizes)}",
        got=f"{usable}; rejected: {'; '.join(told) or 'none'}",
        do=("Correct what was rejected, or l" if told else "L")
        + "ower train_rows, validation_rows or test_rows, or add data.",
    )


def _check_domains(store: RowStore, column: str) -> None:
    query = "SELECT DISTINCT ifnull(domain, 0.0) FROM rows WHERE split = 'train' LIMIT 2"
    domains = [domain for (domain,) in store.database.execute(query)]
    if len(domains) < 2:
        rows = store.value("SELECT count(*) FROM rows WHERE split = 'train'")
        raise PipelineError(
            f"the train split must have at least two domains, numbers of the column {column}",
            got=f"{', '.join(map(str, domains))} only, in {rows} rows",
            do="Give rows of more domains, or set prepare.domain_column: null.",
        )
