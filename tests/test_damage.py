"""Damage to a finished project is mended, refused with advice, or harmless; `python -m tests.damage` says which."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import cache

import pytest

from tests.damage.cases import DAMAGES, Damage
from tests.damage.finished import FinishedProject, known
from tests.record import named_record

pytestmark = pytest.mark.long

RECORD = named_record()
# All of them take twenty minutes on two cores; REFT_DAMAGE=1 tries all, 8 each eighth.
TRIED = DAMAGES[:: int(os.environ.get("REFT_DAMAGE", "8"))]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Callable[[], FinishedProject]:
    """Makes it where it is wanted: not where the record knows every answer."""
    return cache(lambda: FinishedProject(tmp_path_factory.mktemp("damage").resolve()))


@pytest.mark.timeout(0)  # each run has its own limits, which a busy machine does not reach
@pytest.mark.parametrize("damage", TRIED, ids=[damage.name for damage in TRIED])
def test_damage_is_mended_or_refused_or_harmless(project: Callable[[], FinishedProject], damage: Damage) -> None:
    answer = known(RECORD, damage) or project().answer_to(damage, RECORD)
    assert answer.problems == ()


def test_each_damage_has_a_name_of_its_own() -> None:
    assert len({damage.name for damage in DAMAGES}) == len(DAMAGES) > 50  # as docs/schedule.md says
