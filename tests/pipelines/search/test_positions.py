"""Positions of the prompt and behind it in a search: tried tied and untied, and refused where they edit nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pipelines.contracts.trials import TrialRecord, read_trials
from pipelines.errors import PipelineError
from pipelines.stages import search
from tests.searching import FEW, Project, make_context

LAYERS = {"layers": "upper-third", "rank": 4, "learning_rate": 0.02}
POINTS: list[dict[str, Any]] = [
    {**LAYERS, "positions": positions, "tied": tied}
    for positions, tied in (("l1+g2", True), ("l1+g2", False), ("g2", True), ("all", True))
]
# Answers of several tokens: the last one predicts nothing, so no pass reads it.
LONG = {name: {**label, "word": f" is{label['word']} as said"} for name, label in FEW["prepare.labels"].items()}


def made(root: Path, patch: pytest.MonkeyPatch, changes: dict[str, Any]) -> Project:
    patch.setenv("REFT_HOME", str(root / "home"))
    return make_context(root, changes)


def run(project: Project) -> list[TrialRecord]:
    out = project.root / "search"
    search.run(
        project.params, root=project.root, base=project.base, prepared=project.prepared,
        out=out, metrics=project.root / "search.json",
    )  # fmt: skip
    return read_trials(out / "trials.json")


def test_a_search_tries_them_tied_and_untied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    changes = {
        "prepare.labels": LONG,
        "train.tied": "searched",
        "search.trials": len(POINTS),
        "search.space.tied": [True, False],
        "search.space.positions": ["l1+g2", "g2", "all"],
        "search.enqueue": POINTS,
    }
    trials = run(made(tmp_path, monkeypatch, changes))
    assert [trial.state for trial in trials] == ["complete"] * len(POINTS)
    assert [trial.params for trial in trials] == POINTS
    # One layer, hidden size 32, rank 4: 4 * (2 * 32 + 1) numbers an edit, and untied one for each part.
    assert [trial.parameters for trial in trials] == [260, 520, 260, 260]


def test_positions_behind_a_prompt_are_refused_where_no_answer_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    only = {"search.trials": 1, "search.space.positions": ["g2"], "search.enqueue": [{**LAYERS, "positions": "g2"}]}
    project = made(tmp_path, monkeypatch, only)
    with pytest.raises(PipelineError, match="gN needs completions of two tokens or more") as error:
        run(project)
    assert "Got: g2" in str(error.value)
