"""What is made once for all processes of one run of the tests, and copied by each: it takes seconds to make."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path

from filelock import FileLock

SHARED = "REFT_TESTS_SHARED"  # set by conftest.py to a folder that all of pytest's processes see


def made_once(name: str, make: Callable[[Path], None]) -> Path:
    """The folder ``name``, which the first process that asks for it makes whole while the others wait.

    ``make`` fills a folder that is renamed afterwards, so no path in it may be absolute.
    """
    folder = _shared() / name
    with FileLock(f"{folder}.lock"):
        if not folder.exists():
            unfinished = Path(tempfile.mkdtemp(prefix=f"{name}-", dir=folder.parent))
            make(unfinished)
            unfinished.rename(folder)
    return folder


@cache
def _shared() -> Path:
    """The folder for all processes of pytest; outside of it, one that goes with this process."""
    named = os.environ.get(SHARED)
    if named is not None:
        return Path(named)
    own = Path(tempfile.mkdtemp(prefix="reft-shared-"))
    atexit.register(shutil.rmtree, own, ignore_errors=True)
    return own
