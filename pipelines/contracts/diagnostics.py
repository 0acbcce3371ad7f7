"""What stands in metrics/evaluation.json beside the task's own figures: what they alone would not show."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from pipelines.contracts.interval import Interval

NEAR_TRAINING = "near a training row"
"""What test rows are sliced by, yes or no, beside what params.yaml names."""


@dataclass(frozen=True)
class Forgetting:
    """How well text that has nothing to do with the task is continued, with the adapter and without.

    Attributes:
        text: which: ``default``, or the address of the user's own.
        passages: how many it has.
        tokens: of them that are predicted.
        base: the frozen base's perplexity.
        adapter: the adapter's.
        change: how much higher the adapter's is, as a share of the base's; passages are drawn anew.
    """

    text: str
    passages: int
    tokens: int
    base: float
    adapter: float
    change: Interval


@dataclass(frozen=True)
class ReliabilityBin:
    """The rows whose answers have a probability above ``low`` and up to ``high``: its mean, and how many are right."""

    low: float
    high: float
    rows: int
    confidence: float
    accuracy: float


@dataclass(frozen=True)
class Calibration:
    """How far the probability of an answer is from how often such answers are right.

    ``expected_error`` is the mean over rows of the gaps of their bins; bins without rows are left out.
    """

    expected_error: float
    bins: list[ReliabilityBin]


@dataclass(frozen=True)
class CommonAnswer:
    """The answer that a system gives most often, and the share of rows that it gives it to."""

    answer: str
    share: float


@dataclass(frozen=True)
class SliceFigures:
    """The figures of a part of the rows.

    Attributes:
        by: what the rows are sliced by.
        part: which of its parts this is.
        rows: of the part.
        groups: of its rows that say less together than apart.
        adapter: the measure with its interval.
        base: the frozen base's.
        difference: the paired difference.
    """

    by: str
    part: str
    rows: int
    groups: int
    adapter: Interval
    base: Interval
    difference: Interval


@dataclass(frozen=True)
class Diagnostics:
    """What was looked at beside the task's figures; ``adapter`` and ``base`` are the keys of what is of both systems.

    Attributes:
        forgetting: None of an encoder, which continues no text.
        common: the commonest answer.
        calibration: empty for a task whose answers have no probability.
        near_training: test rows that are nearly a training row.
        slices: of the parts of the test rows, in the order in which they are to be shown.
    """

    forgetting: Forgetting | None
    common: dict[str, CommonAnswer]
    calibration: dict[str, Calibration]
    near_training: int
    slices: list[SliceFigures]

    def flat(self) -> dict[str, float]:
        """Every figure by a name, as ``forgetting.change``."""
        flat: dict[str, float] = {}
        if self.forgetting is not None:
            own, change = self.forgetting, asdict(self.forgetting.change)
            flat |= {"forgetting.base": own.base, "forgetting.adapter": own.adapter}
            flat |= {f"forgetting.{'change' if name == 'value' else name}": value for name, value in change.items()}
        flat |= {f"calibration.{system}": own.expected_error for system, own in self.calibration.items()}
        flat["near_training"] = self.near_training
        return flat | {f"commonest_answer.{system}": own.share for system, own in self.common.items()}


def read_diagnostics(raw: Mapping[str, Any] | None) -> Diagnostics | None:
    """Build what was written; None of a file that an earlier release wrote."""
    if raw is None:
        return None
    forgetting = raw["forgetting"]
    if forgetting is not None:
        forgetting = Forgetting(**_with_intervals(forgetting, "change"))
    return Diagnostics(
        forgetting=forgetting,
        common={system: CommonAnswer(**own) for system, own in raw["common"].items()},
        near_training=raw["near_training"],
        calibration={system: _calibration(own) for system, own in raw["calibration"].items()},
        slices=[SliceFigures(**_with_intervals(own, "adapter", "base", "difference")) for own in raw["slices"]],
    )


def _calibration(raw: Mapping[str, Any]) -> Calibration:
    return Calibration(**{**raw, "bins": [ReliabilityBin(**own) for own in raw["bins"]]})


def _with_intervals(raw: Mapping[str, Any], *names: str) -> dict[str, Any]:
    return {**raw, **{name: Interval(**raw[name]) for name in names}}
