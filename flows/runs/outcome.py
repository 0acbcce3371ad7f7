"""What became of the stages of a run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Outcome = Literal["ran", "restored", "skipped"]


@dataclass(frozen=True)
class StageRun:
    """What became of a stage: ``restored`` means that DVC had the outputs of an earlier run with the same inputs."""

    stage: str
    outcome: Outcome
    seconds: float


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
