"""Kills of the matrix, one after the other in one project (``make kill-matrix`` runs each alone), and random ones."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.kills import SERVER, make_reference, run_chain
from tests.random_kills import lives

pytestmark = pytest.mark.long


def test_a_killed_run_ends_as_if_nobody_had_killed_it(tmp_path: Path) -> None:
    folder = tmp_path.resolve()
    template, facts = make_reference(folder, folder / "home")
    kills = [("dvc alone", "prepare"), ("flow", "search"), ("dvc", "train")]
    outcome = run_chain(kills, template, folder / "home", facts, folder / "killed")
    assert outcome.problems == ()
    assert outcome.how == "the same run went on"


@pytest.mark.parametrize("stage", ["search", "register"])
def test_a_run_whose_server_is_killed_ends_as_if_nothing_had_been(tmp_path: Path, stage: str) -> None:
    folder = tmp_path.resolve()
    template, facts = make_reference(folder, folder / "home")
    outcome = run_chain([(SERVER, stage)], template, folder / "home", facts, folder / "killed")
    assert outcome.problems == ()
    assert outcome.how == "the same run went on"


@pytest.mark.timeout(2400)
@pytest.mark.parametrize("count", [100])
def test_random_kills_leave_what_an_undisturbed_run_leaves(tmp_path: Path, count: int) -> None:
    found = list(lives(count, seed=0, folder=tmp_path.resolve()))
    assert [life.problems for life in found] == [() for _ in found]
