"""reports/gate.json: what the gate decided of a challenger, with every number that it went by."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from pipelines.contracts.reading import Fields, read_fields
from pipelines.files import write_json

FORMAT = 1


@dataclass(frozen=True)
class Lead:
    """The challenger's lead over something else on the same rows.

    ``low`` and ``high`` bound it at the confidence of ``evaluate``; ``p_value`` is how likely so large a lead is, of
    this sign, between two that are equal.
    """

    value: float
    low: float
    high: float
    p_value: float


@dataclass(frozen=True)
class SliceLead:
    """The challenger's lead over the champion on the rows of one label or slice; ``p_value`` is that of a loss."""

    rows: int
    value: float
    p_value: float


@dataclass(frozen=True)
class Measured:
    """A figure of both versions that has a limit; None where it is not known, or where there is no limit."""

    challenger: float | None
    champion: float | None
    limit: float | None


@dataclass(frozen=True)
class Verdict:
    """What the gate says.

    Attributes:
        promote: whether the challenger is to take the champion's place.
        reasons: why, or every rule that it breaks.
        asked: whether each system answered the test rows; one that did not may do so the next time.
        measure: of the task.
        rows: test rows that both were compared on.
        units: groups and single rows among them, which are drawn and tested as wholes.
        left_out: test rows that one of them was made with.
        look: which comparison with a champion it is in its year, from 1; 0 where there is no champion.
        level: what a p-value must be below at this look.
        values: the measure of ``challenger``, ``champion`` and ``base``; those that are known.
        over_champion: None without a champion, or where it cannot be told.
        over_base: the same over the frozen base.
        over_majority: over always giving the commonest answer, where a task has one and there is no champion.
        detectable: the least true lead over the champion that such rows show at this look, with 80 % power.
        slices: by label or slice.
        figures: what has limits, by name.
    """

    promote: bool
    reasons: tuple[str, ...]
    asked: bool
    measure: str
    rows: int
    units: int
    left_out: int
    look: int
    level: float
    values: Mapping[str, float]
    over_champion: Lead | None
    over_base: Lead | None
    over_majority: Lead | None
    detectable: float | None
    slices: Mapping[str, SliceLead]
    figures: Mapping[str, Measured]


@dataclass(frozen=True)
class Decision:
    """A verdict, of which versions, and what came of it.

    Attributes:
        key: of all that it was made from; the same inputs are not asked again.
        model: the registered model.
        version: the challenger's number.
        champion: the number of the champion that it was compared with; None: there was none.
        at: when, in UTC.
        forced: why a person promoted it whatever the gate says; None: nobody did.
        promoted: whether the version is champion now.
        dry: nothing was written to the registry.
        verdict: what the gate says.
    """

    key: str
    model: str
    version: int
    champion: int | None
    at: str
    forced: str | None
    promoted: bool
    dry: bool
    verdict: Verdict


def write_decision(path: Path, decision: Decision) -> None:
    """Write gate.json."""
    write_json(path, {"format": FORMAT, **asdict(decision)})


def read_decision(path: Path) -> Decision:
    """Read gate.json; raises :class:`PipelineError` if it is not what a promotion writes."""
    return read_fields(path, _decision, stage="promotion")


def _decision(raw: Fields) -> Decision:
    values = {name: value for name, value in raw.items() if name != "format"}
    return Decision(**{**values, "verdict": _verdict(values["verdict"])})


def _verdict(raw: Fields) -> Verdict:
    leads = {name: _lead(raw[name]) for name in ("over_champion", "over_base", "over_majority")}
    slices = {name: SliceLead(**found) for name, found in raw["slices"].items()}
    figures = {name: Measured(**found) for name, found in raw["figures"].items()}
    return Verdict(**{**raw, **leads, "reasons": tuple(raw["reasons"]), "slices": slices, "figures": figures})


def _lead(raw: Fields | None) -> Lead | None:
    return None if raw is None else Lead(**raw)
