"""What became of the stages of a run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from flows.runs.refresh import News
from pipelines.contracts.verdict import Decision
from pipelines.project.graph import Graph

Outcome = Literal["ran", "restored", "skipped"]


@dataclass(frozen=True)
class StageRun:
    """What became of a stage: ``restored`` means that DVC had the outputs of an earlier run with the same inputs."""

    stage: str
    outcome: Outcome
    seconds: float


@dataclass(frozen=True)
class GateOutcome:
    """The alias that the project's version has, and the gate's decision of it; None: none, or it was not asked."""

    alias: str | None
    decision: Decision | None


@dataclass(frozen=True)
class FlowResult:
    """What a run came to.

    Attributes:
        root: the project.
        graph: its stages.
        runs: what became of each stage.
        store: the tracking store's address.
        pushed: whether data and adapter were pushed to a remote.
        gate: where that leaves the project's version.
        news: what was taken in before; None: nobody asked for it.
    """

    root: Path
    graph: Graph
    runs: list[StageRun]
    store: str
    pushed: bool
    gate: GateOutcome
    news: News | None = None

    def path(self, name: str) -> Path:
        """The file or folder that dvc.yaml calls ``name``."""
        return self.root / self.graph.paths[name]


def result_line(result: FlowResult) -> str:
    """The same of a whole run, with what was taken in before it."""
    line = outcome_line(result.runs)
    return line if result.news is None else f"{result.news.words()}. {line}"


def outcome_line(runs: Sequence[StageRun]) -> str:
    """One line for logs and for the state of a flow run."""
    seconds = sum(run.seconds for run in runs)
    kinds: tuple[Outcome, ...] = ("ran", "restored")
    by_kind = {kind: [run.stage for run in runs if run.outcome == kind] for kind in kinds}
    done = [f"{kind} {', '.join(stages)}" for kind, stages in by_kind.items() if stages]
    if not done:
        return f"Nothing was stale: all {len(runs)} stages were skipped in {seconds:.0f} s"
    skipped = sum(run.outcome == "skipped" for run in runs)
    return f"{'; '.join(done)}; {skipped} skipped; {seconds:.0f} s".capitalize()
