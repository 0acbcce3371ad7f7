"""Two kills of the matrix, one after the other in one project; ``make kill-matrix`` runs all fifteen, each alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.kills import make_reference, run_chain

pytestmark = pytest.mark.long


def test_a_killed_run_ends_as_if_nobody_had_killed_it(tmp_path: Path) -> None:
    folder = tmp_path.resolve()
    template, facts = make_reference(folder, folder / "home")
    kills = [("flow", "search"), ("dvc", "train")]
    outcome = run_chain(kills, template, folder / "home", facts, folder / "killed")
    assert outcome.problems == ()
    assert outcome.how == "the same run went on"
