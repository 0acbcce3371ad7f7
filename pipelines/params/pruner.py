"""Section `search.pruner` of params.yaml: when a trial is stopped before its end."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from pipelines.sections import Count, Section


class NoPruner(Section):
    """Every trial runs to its end."""

    name: Literal["none"]

    def first_report(self) -> tuple[str, int]:
        """The key that says so, and the first report that it looks at."""
        return "name", 0  # at none, so before any


class MedianPruner(Section):
    """A trial below the median of the earlier ones at the same report is stopped."""

    name: Literal["median"]
    startup_trials: Annotated[int, Field(ge=0)]
    warmup_reports: Annotated[int, Field(ge=0)]

    def first_report(self) -> tuple[str, int]:
        """The key that says so, and the first report that it looks at."""
        return "warmup_reports", self.warmup_reports + 1


class HalvingPruner(Section):
    """At reports min_reports, min_reports * reduction, and so on, the best one in ``reduction`` goes on."""

    name: Literal["successive_halving", "hyperband"]
    min_reports: Count
    reduction: Annotated[int, Field(ge=2)]

    def first_report(self) -> tuple[str, int]:
        """The key that says so, and the first report that it looks at."""
        return "min_reports", self.min_reports


class WilcoxonPruner(Section):
    """A trial whose rows are scored worse than the best trial's at the same report is stopped (signed-rank test)."""

    name: Literal["wilcoxon"]
    p: Annotated[float, Field(gt=0, lt=0.5)]
    warmup_reports: Annotated[int, Field(ge=0)]

    def first_report(self) -> tuple[str, int]:
        """The key that says so, and the first report that it looks at."""
        return "warmup_reports", self.warmup_reports + 1


PrunerParams = Annotated[NoPruner | MedianPruner | HalvingPruner | WilcoxonPruner, Field(discriminator="name")]
