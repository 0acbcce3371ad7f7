"""Free disk space, looked at before work starts and not when it is gone; what is said where a disk takes no more."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Iterator
from pathlib import Path

from pipelines.errors import PipelineError
from pipelines.files import require_space

PROJECT_BYTES = 500_000_000  # DVC's cache, MLflow's store, checkpoints, plots
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
# How libraries say it that raise errors of their own: Rust's and SQLite's.
SAID = ("No space left on device", "database or disk is full", "disk I/O error", "Disk quota exceeded")


def check_project_space(root: Path) -> None:
    """Make sure that a stage can write in the project folder.

    Raises:
        PipelineError: naming the folder, what is needed and what is free.
    """
    require_space(root, PROJECT_BYTES)


def full_disk(error: BaseException, root: Path) -> PipelineError | None:
    """The error for a disk that took no more, whatever library met it; None for any other error.

    Args:
        error: what was raised.
        root: the project folder, which is named where the error names no file.
    """
    for each in _chain(error):
        full = each.errno in FULL if isinstance(each, OSError) else any(said in str(each) for said in SAID)
        if full and not isinstance(each, PipelineError):  # which says what it means, as a stage did that met this
            named = getattr(each, "filename", None)
            place = Path(named) if isinstance(named, str | Path) else root
            free = _free(place)
            do = "Free some (reft clean tells what takes room)"
            if free >= PROJECT_BYTES:  # EFBIG, a quota, and "disk I/O error", which SQLite says of a failing disk too
                do = "There is room, so see what else is in the way: a limit on files (ulimit -f), a quota, the disk"
            return PipelineError(
                f"the disk must take {place if named else f'what is written in {root}'}",
                got=f"{' '.join(str(each).split())[:300]}: {free / 1e6:.0f} MB free, and a stage needs "
                f"{PROJECT_BYTES / 1e6:.0f} MB",
                do=f"{do}, then run again: what was done by then is kept.",
            )
    return None


def _chain(error: BaseException) -> Iterator[BaseException]:
    """An error and what it came from."""
    seen: set[int] = set()
    found: BaseException | None = error
    while found is not None and id(found) not in seen:
        seen.add(id(found))
        yield found
        found = found.__cause__ or found.__context__


def _free(place: Path) -> int:
    folder = place.absolute()
    while not folder.is_dir():
        folder = folder.parent
    return shutil.disk_usage(folder).free
