"""Splits of rows that more are added to: no row ever changes its split.

A unit, which is a group or a single text, is given a split by a hash of itself and the seed, as a draw of shares: what
other rows there are plays no part, nor does their order. So there is nothing to remember, and two clones agree. The
test split lies at one end of the hashes and the validation split at the other: where a share is changed, rows move
between one of them and the train split, and never from validation to test.
"""

from __future__ import annotations

from collections.abc import Sequence

from pipelines.contracts.prepared import SPLITS, Split
from pipelines.errors import PipelineError
from pipelines.tasks.keys.prepare import GrowingParams, PrepareParams
from pipelines.tasks.row_store import RowStore

TORN = "the text stands in groups of several splits"
_WIDTH = 8  # bytes of a hash that a draw is read from
_BEHIND = b"\xff" * 33  # behind every SHA-256


def place(store: RowStore, pool: Split, shares: GrowingParams) -> None:
    """Give every row of a source its split: of the main one by the hash of its unit, of another the one it is for."""
    if pool != "train":
        store.database.execute("UPDATE rows SET split = ? WHERE pool = ?", (pool, pool))
        return
    below = b"" if shares.test is None else _bound(shares.test)
    above = _BEHIND if shares.validation is None else _bound(1 - shares.validation)
    store.database.execute(
        "UPDATE rows SET split = CASE WHEN near_unit < ? THEN 'test' WHEN near_unit >= ? THEN 'validation' "
        "ELSE 'train' END WHERE pool = ?",
        (below, above, pool),
    )


def reject_torn(store: RowStore, pool: Split) -> None:
    """Reject every row of a text that stands in groups of several splits.

    Were one of its rows kept, the order of the rows would say which, and another order would move the text.
    """
    database = store.database
    database.execute("CREATE INDEX IF NOT EXISTS near ON rows (near)")
    database.execute(
        "CREATE TEMP TABLE torn AS SELECT n FROM rows WHERE pool = ? AND (near, key) IN (SELECT near, key FROM rows "
        "WHERE pool = ? GROUP BY near, key HAVING count(DISTINCT split) > 1) ORDER BY n",
        (pool, pool),
    )
    for (number,) in database.execute("SELECT n FROM torn ORDER BY rowid"):
        row = store.row(number)
        store.note(row.reject(TORN, row.group), number)
    database.execute("DROP TABLE torn")


def check_sizes(store: RowStore, pools: Sequence[Split], config: PrepareParams) -> None:
    """Take what was rejected out of the splits, and see that each has its least number of rows.

    Raises:
        PipelineError: if one has not.
    """
    store.database.execute("UPDATE rows SET split = NULL WHERE NOT kept")
    least: dict[Split, int] = {
        "train": config.train_rows, "validation": config.validation_rows, "test": config.test_rows
    }  # fmt: skip
    found = {split: store.value("SELECT count(*) FROM rows WHERE split = ?", split) for split in SPLITS}
    for split in SPLITS:
        if found[split] < least[split]:
            own = split in pools and split != "train"
            raise PipelineError(
                f"the {split} split must have at least prepare.{split}_rows = {least[split]} rows",
                got=f"{found[split]}; train, validation and test have {', '.join(map(str, found.values()))}",
                do="Add rows to its source."
                if own
                else f"Lower prepare.{split}_rows, or add rows. A share of growing "
                "that is changed moves rows from one split to another.",
            )


def _bound(share: float) -> bytes:
    """The hashes below these bytes are that share of all."""
    return min(round(share * 2 ** (8 * _WIDTH)), 2 ** (8 * _WIDTH) - 1).to_bytes(_WIDTH, "big")
