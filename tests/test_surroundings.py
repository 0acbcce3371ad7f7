"""A run leaves what it always leaves, or is refused, whatever the machine; `python -m tests.surroundings`: a table."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kills import Facts
from tests.record import named_record
from tests.surroundings import ALL, Surroundings, reference, tried, why_not

pytestmark = pytest.mark.long

RECORD = named_record()
# All of them take twenty minutes on two cores; REFT_SURROUNDINGS=1 tries all, 4 each fourth.
TRIED = ALL[:: int(os.environ.get("REFT_SURROUNDINGS", "4"))]


@pytest.fixture(scope="module")
def expected() -> Facts:
    return reference(RECORD)


@pytest.fixture
def folder() -> Iterator[Path]:
    """Not pytest's own, into which nobody else may look."""
    with tempfile.TemporaryDirectory(prefix="reft-surroundings-") as name:
        own = Path(name).resolve() / "trial"
        own.parent.chmod(0o711)
        own.mkdir()
        yield own


@pytest.mark.timeout(0)  # each run has its own limits, which a busy machine does not reach
@pytest.mark.parametrize("surroundings", TRIED, ids=[one.name for one in TRIED])
def test_a_run_ends_as_it_should(surroundings: Surroundings, folder: Path, expected: Facts) -> None:
    reason = why_not(surroundings)
    if reason is not None:
        pytest.skip(reason)
    assert tried(surroundings, folder, expected, RECORD).problems == ()
