"""reports/judge.json and judge.jsonl: what was judged, by whom, and each pair with both verdicts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import Any

from pipelines.files import write_json, write_jsonl
from pipelines.judge.judgement import Judgement, Outcomes
from pipelines.judge.likeness import NO_JUDGEMENT, Measured
from pipelines.judge.pairs import Pair, score
from pipelines.judge.planning import Judge
from pipelines.judge.systems import System
from pipelines.judge.tally import Tally


def write_judgement(
    path: Path, found: Judgement, tally: Tally, judge: Judge, *, systems: tuple[System, System], confidence: float
) -> None:
    """Write the figures; no part of them holds the key."""
    asked: dict[str, Any] = {name: value for name, value in vars(tally).items() if name != "seconds"}
    asked["median_seconds"] = median(tally.seconds) if tally.seconds else None
    who = {"address": judge.address, "model": judge.model}
    write_json(
        path,
        {**_named(systems), "judge": who, "confidence": confidence, "asked": asked, **asdict(found)},
    )


def write_pairs(path: Path, pairs: Sequence[Pair], outcomes: Outcomes) -> None:
    """Write each pair with what the judge said to either order, and what that scores."""
    write_jsonl(path, (_written(pair, outcomes) for pair in pairs))


def write_measured(path: Path, found: Measured, *, systems: tuple[System, System], confidence: float) -> None:
    """Write what is said without a judge, with the sentence that it is no judgement."""
    write_json(
        path,
        {**_named(systems), "confidence": confidence, "note": NO_JUDGEMENT, "figures": asdict(found)},
    )


def _named(systems: tuple[System, System]) -> Mapping[str, object]:
    """Both names, and what they stood for."""
    hashes = {
        side: {name: value for name, value in vars(system).items() if name != "name"}
        for side, system in zip(("one", "other"), systems, strict=True)
    }
    return {"one": systems[0].name, "other": systems[1].name, "systems": hashes}


def _written(pair: Pair, outcomes: Outcomes) -> dict[str, object]:
    first, second = (outcomes(question) for question in pair.questions())
    told = {name: value for name, value in asdict(pair).items() if value is not None}
    return {**told, "one_first": first, "other_first": second, "score": 0.5 if pair.alike else score((first, second))}
