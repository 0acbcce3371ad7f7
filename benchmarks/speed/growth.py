"""How the time of a warm training step grows: with rank, layers, prompt length and rows; ours beside pyreft's.

Each axis is varied alone, from a step of 8 rows with prompts of about 110 tokens and the case's layers, positions and
rank 8; fewer layers are the upper ones. Both sides take the same rows in turn, and their losses must agree first.

Prints a Markdown table; --plot draws it. The defaults take about 45 minutes on two cores; a short run:

  python -m benchmarks.speed.growth --cases c --axes rank --repeats 2 --plot growth.png
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from tqdm import tqdm

from benchmarks.sides.arguments import names, number, parser
from benchmarks.sides.ours import CASES, Case, Subject, fit_config
from benchmarks.sides.project import load_subject
from benchmarks.sides.rows import COMPLETION
from benchmarks.sides.setting import announce
from benchmarks.sides.timing import Timing, interleaved
from benchmarks.speed.agreement import matched
from benchmarks.speed.steps import BATCHES, EPOCHS, OURS, PYREFT, once
from benchmarks.speed.tables import Ratio, milliseconds, table

BATCH, PROMPT = 8, 110
AXES = {
    "rank": (1, 4, 8, 16, 64),
    "layers": (1, 4, 8, 15, 30),
    "prompt": (32, 64, 110, 256, 512),
    "rows": (1, 4, 8, 16, 32),
}
LABELS = {"rank": "rank", "layers": "edited layers", "prompt": "tokens of a prompt", "rows": "rows of a step"}


@dataclass(frozen=True)
class Point:
    """Where a step is timed: one axis at one value, the others as they are by default.

    Attributes:
        axis: what is varied.
        value: of it.
        case: the recipe.
        batch: rows of a step.
        prompt: nominal tokens of a prompt.
    """

    axis: str
    value: int
    case: Case
    batch: int = BATCH
    prompt: int = PROMPT


@dataclass(frozen=True)
class Figure:
    """What a step takes there: seconds of both sides, and how far their losses differ at equal weights, in nats."""

    point: Point
    seconds: dict[str, Timing]
    difference: float


def points(case: Case, axes: Sequence[str], num_layers: int) -> Iterator[Point]:
    """Yield the points of one case; more layers than the base has are left out."""
    for axis in axes:
        for value in AXES[axis]:
            if axis == "rank":
                yield Point(axis, value, replace(case, rank=value))
            elif axis == "layers" and value <= num_layers:
                yield Point(axis, value, replace(case, layers=f"{num_layers - value}:{num_layers}"))
            elif axis == "prompt":
                yield Point(axis, value, case, prompt=value)
            elif axis == "rows":
                yield Point(axis, value, case, batch=value)


def measure(subject: Subject, point: Point, *, repeats: int) -> Figure:
    """Time warm steps of both sides at one point."""
    rows = subject.rows(point.prompt, point.batch * BATCHES)
    pair = matched(subject, point.case.config(subject.num_layers), rows, fit_config(point.batch, EPOCHS))
    seconds = interleaved({OURS: once(pair.ours), PYREFT: once(pair.pyreft)}, repeats=repeats, warmup=0)
    return Figure(point, seconds, pair.difference)


def growth_table(figures: Sequence[Figure]) -> str:
    """Return the medians and their ratio at each point."""
    rows = (
        [
            f"({each.point.case.name}) {each.point.case.positions}",
            LABELS[each.point.axis],
            each.point.value,
            milliseconds(each.seconds[OURS]),
            milliseconds(each.seconds[PYREFT]),
            Ratio.of(each.seconds[PYREFT], each.seconds[OURS]),
        ]
        for each in figures
    )
    return table(["case", "axis", "value", "ours, ms", "pyreft, ms", "pyreft / ours"], rows)


def draw(path: Path, figures: Sequence[Figure]) -> None:
    """Draw a panel for each axis as PNG, with both scales logarithmic and bars from quartile to quartile."""
    from pipelines.reports.plots import plt, save  # matplotlib takes a second to import

    axes = list(dict.fromkeys(each.point.axis for each in figures))
    cases = list(dict.fromkeys(each.point.case.name for each in figures))
    picture, panels = plt.subplots(1, len(axes), figsize=(4 * len(axes), 3.6), sharey=True, squeeze=False)
    for axis, panel in zip(axes, panels[0], strict=True):
        for color, case in enumerate(cases):
            chosen = [each for each in figures if (each.point.axis, each.point.case.name) == (axis, case)]
            for side, line in ((OURS, "-"), (PYREFT, "--")):
                timings = [each.seconds[side] for each in chosen]
                middle = [timing.median for timing in timings]
                spread = [
                    [timing.median - timing.quartiles[0] for timing in timings],
                    [timing.quartiles[1] - timing.median for timing in timings],
                ]
                values = [each.point.value for each in chosen]
                label = f"({case}) {side}"
                panel.errorbar(values, middle, spread, fmt=f"o{line}", color=f"C{color}", label=label, markersize=3)
        panel.set(xlabel=LABELS[axis], xscale="log", yscale="log")
        measured = sorted({each.point.value for each in figures if each.point.axis == axis})
        panel.set_xticks(measured, [str(value) for value in measured])
        panel.xaxis.minorticks_off()
    panels[0][0].set_ylabel("seconds of a warm step")
    panels[0][0].legend()
    path.parent.mkdir(parents=True, exist_ok=True)
    save(picture, path)


def _work(point: Point, repeats: int) -> float:
    """Return about how many tokens' worth of plain training a point is, with ours at half of it and filled first."""
    return point.batch * (point.prompt + COMPLETION) * (1.5 * (repeats + 1) + BATCHES - 1)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure every point, print the table and draw it."""
    built = parser("benchmarks.speed.growth", __doc__)
    default = " (default: %(default)s)"
    built.add_argument("--cases", type=names(CASES), default="a,c", help=f"the recipes{default}")
    built.add_argument("--axes", type=names(AXES), default=",".join(AXES), help=f"what is varied{default}")
    built.add_argument("--repeats", type=number, default=3, help=f"rounds of each measurement{default}")
    built.add_argument("--plot", type=Path, help="PNG file for the picture")
    chosen = built.parse_args(arguments)
    subject = load_subject(chosen.root, threads=chosen.threads)
    where = [point for name in chosen.cases for point in points(CASES[name], chosen.axes, subject.num_layers)]
    announce(subject, sum(_work(point, chosen.repeats) for point in where))
    bar = tqdm(where, desc="growth", unit="point", file=sys.stderr)
    figures = [measure(subject, point, repeats=chosen.repeats) for point in bar]
    print(growth_table(figures))
    if chosen.plot is not None:
        draw(chosen.plot, figures)
    if chosen.out is not None:
        chosen.out.write_text(json.dumps([asdict(each) for each in figures], indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
