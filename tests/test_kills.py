"""Two cells of the kill matrix; ``make kill-matrix`` runs all fifteen."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.kills import Facts, make_reference, run_cell

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Facts]:
    """A folder, a project in it that has run nothing, and what a run of it holds that nobody killed."""
    folder = tmp_path_factory.mktemp("kills").resolve()
    template, facts = make_reference(folder, folder / "home")
    return folder, template, facts


@pytest.mark.parametrize(("process", "stage"), [("flow", "search"), ("dvc", "train")])
def test_a_killed_run_ends_as_if_nobody_had_killed_it(
    reference: tuple[Path, Path, Facts], process: str, stage: str
) -> None:
    folder, template, facts = reference
    outcome = run_cell(process, stage, template, folder / "home", facts, folder / f"{process}-{stage}")
    assert outcome.problems == ()
