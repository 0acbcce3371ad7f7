"""The two pictures of docs/results/protocol.md: figures, and forgetting beside, against trained numbers and seconds."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from benchmarks.quality.claim_lines import Line
from benchmarks.quality.claim_plan import BASE
from pipelines.contracts.interval import Interval

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MARKERS = "osD^vP*Xhd<>p8"


@dataclass(frozen=True)
class Axis:
    """What the lines are drawn against, on a logarithmic axis."""

    words: str
    of: Callable[[Line], float]


PICTURES: Mapping[str, Axis] = {
    "numbers.svg": Axis("trained numbers", lambda line: line.parameters),
    "seconds.svg": Axis("seconds of the processor for one training", lambda line: line.train),
}


def picture(lines: Sequence[Line], axis: Axis) -> str:
    """Draw a column a task as SVG: above the figure of the test rows, below the change of neutral text's perplexity."""
    import matplotlib
    from matplotlib import pyplot as plt

    tasks = list(dict.fromkeys(line.task for line in lines))
    names = [name for name in dict.fromkeys(line.name for line in lines) if name != BASE]
    with matplotlib.rc_context({"svg.hashsalt": "claim", "svg.fonttype": "none"}):  # the same bytes each time
        figure, panels = plt.subplots(2, len(tasks), figsize=(4.5 * len(tasks) + 2.5, 7), sharex="col", squeeze=False)
        for column, task in enumerate(tasks):
            above, below = panels[0][column], panels[1][column]
            for line in (line for line in lines if line.task == task):
                if line.name == BASE:
                    above.axhline(
                        100 * line.value.value, color="tab:gray", linestyle="--", linewidth=1, label="frozen base"
                    )
                    continue
                _draw(above, line, axis, line.value, names.index(line.name))
                if line.forgetting is not None:
                    _draw(below, line, axis, line.forgetting, names.index(line.name))
            below.axhline(0.0, color="tab:gray", linestyle="--", linewidth=1)
            above.set(title=task, ylabel="test rows (%)" if column == 0 else "", xscale="log")
            below.set(
                xlabel=axis.words, ylabel="perplexity of neutral text, change (%)" if column == 0 else "", xscale="log"
            )
        panels[0][-1].legend(fontsize="small", loc="upper left", bbox_to_anchor=(1.0, 1.0))
        figure.tight_layout()
        return svg_text(figure)


def svg_text(figure: Figure) -> str:
    """A picture as SVG, without what differs from day to day; it is closed."""
    from matplotlib import pyplot as plt

    drawn = io.StringIO()
    figure.savefig(drawn, format="svg", metadata={"Date": None, "Creator": None})
    plt.close(figure)
    return "\n".join(line.rstrip() for line in drawn.getvalue().splitlines()) + "\n"


def _draw(panel: object, line: Line, axis: Axis, found: Interval, place: int) -> None:
    value, low, high = (100 * each for each in (found.value, found.low, found.high))
    panel.errorbar(  # type: ignore[attr-defined]  # matplotlib's axes have no types here
        axis.of(line), value, yerr=[[max(value - low, 0.0)], [max(high - value, 0.0)]],
        fmt=MARKERS[place % len(MARKERS)], capsize=3, color=f"C{place % 10}", label=line.name,
    )  # fmt: skip
