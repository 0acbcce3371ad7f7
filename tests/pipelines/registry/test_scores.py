"""The champions' scores over time are those of the decisions that the versions' runs keep."""

from __future__ import annotations

from pathlib import Path

from pipelines.contracts.verdict import Decision
from pipelines.params.whole import Params
from pipelines.registry.__main__ import log_decision, write_both
from pipelines.registry.promote import Request
from pipelines.registry.scores import decisions
from pipelines.tracking.runs import Store
from tests.promoting import MODEL, SHARES, promoted


def test_decisions_come_back_from_the_registry_oldest_first(lives: Store, lives_params: Params, tmp_path: Path) -> None:
    def record(decision: Decision) -> None:
        write_both(decision, tmp_path / "gate.json")
        log_decision(lives, decision, tmp_path / "gate.json")

    assert decisions(lives, MODEL) == []
    made = [promoted(lives, lives_params, Request(version), record=record) for version in (2, 3)]
    found = decisions(lives, MODEL)
    assert found == made
    assert [one.verdict.values.get("champion") for one in found] == [SHARES["1"], SHARES["2"]]
    assert decisions(lives, "none-of-that-name") == []
