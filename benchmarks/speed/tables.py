"""Figures as Markdown, in the form that a README has."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from benchmarks.sides.timing import Timing
from benchmarks.speed.beside import BesideFigures
from benchmarks.speed.counting import StepOperations
from benchmarks.speed.inference import FIRST, FROZEN, GenerationFigures, ScoringFigures
from benchmarks.speed.memory import MemoryFigures
from benchmarks.speed.profiling import Gap
from benchmarks.speed.search import TrialFigures
from benchmarks.speed.steps import OURS, PYREFT, StepFigures, TrainingFigures


@dataclass(frozen=True)
class Ratio:
    """How many times longer one contender takes than another: the median over rounds, and the quartiles."""

    median: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.median:.2f} ({self.low:.2f}–{self.high:.2f})"

    @classmethod
    def of(cls, slow: Timing, fast: Timing) -> Ratio:
        """Divide round by round: what slows the machine for a minute slows neighbours alike."""
        rounds = Timing(tuple(one / other for one, other in zip(slow.seconds, fast.seconds, strict=True)))
        return cls(rounds.median, *rounds.quartiles)


def table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Return a Markdown table; every column but the first is aligned to the right."""
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    return "".join(f"| {' | '.join(map(str, line))} |\n" for line in lines)


def step_table(figures: Sequence[StepFigures], names: Mapping[str, str]) -> str:
    """Return the medians of a warm step, and how many times ours the others take; ``names`` has the cases' words."""
    figures = sorted(figures, key=lambda each: (each.prompt, each.batch, each.case))
    contenders = list(figures[0].seconds)
    others = [who for who in contenders if who != OURS]
    header = ["case", "batch", "prompt", *(f"{who}, ms" for who in contenders), *(f"{who} / ours" for who in others)]
    rows = (
        [
            names[each.case],
            each.batch,
            each.prompt,
            *(milliseconds(each.seconds[who]) for who in contenders),
            *(Ratio.of(each.seconds[who], each.seconds[OURS]) for who in others),
        ]
        for each in figures
    )
    counts = {
        each.case: ", ".join(f"{who} {count:,}" for who, count in each.trained.items() if count) for each in figures
    }
    return f"{table(header, rows)}\nTrained values: {'; '.join(f'({case}) {said}' for case, said in counts.items())}.\n"


def training_table(figures: Sequence[TrainingFigures], names: Mapping[str, str]) -> str:
    """Return the seconds of whole trainings after the first epoch and after the last."""
    header, rows = ["case", "rows", "epochs", "ours, s", "pyreft, s", "pyreft / ours"], []
    for each in figures:
        for epoch in sorted({1, len(each.seconds[OURS])}):
            ours, pyreft = each.seconds[OURS][epoch - 1], each.seconds[PYREFT][epoch - 1]
            rows.append([names[each.case], each.rows, epoch, f"{ours:.1f}", f"{pyreft:.1f}", f"{pyreft / ours:.2f}"])
    return table(header, rows)


def scoring_table(figures: Sequence[ScoringFigures], names: Mapping[str, str]) -> str:
    """Return the seconds of scoring a set for the first time and again."""
    header = ["case", "prompts", "ours, first time, s", "ours, kept, s", "pyreft, s", "pyreft / ours, kept"]
    rows = (
        [
            names[each.case],
            each.rows,
            *(f"{each.seconds[who].median:.2f}" for who in (FIRST, OURS, PYREFT)),
            Ratio.of(each.seconds[PYREFT], each.seconds[OURS]),
        ]
        for each in figures
    )
    return table(header, rows)


def generation_table(figures: Sequence[GenerationFigures], names: Mapping[str, str]) -> str:
    """Return the time of a continuation, and how much longer than the frozen base's."""
    contenders = (OURS, FROZEN, PYREFT)
    header = ["case", "batch", "tokens", *(f"{who}, ms" for who in contenders), "ours / frozen base", "pyreft / ours"]
    rows = (
        [
            names[each.case],
            each.batch,
            each.tokens,
            *(milliseconds(each.seconds[who]) for who in contenders),
            Ratio.of(each.seconds[OURS], each.seconds[FROZEN]),
            Ratio.of(each.seconds[PYREFT], each.seconds[OURS]),
        ]
        for each in figures
    )
    return table(header, rows)


def memory_table(figures: Sequence[MemoryFigures], names: Mapping[str, str]) -> str:
    """Return the peak memory of a process in MB."""
    header = ["case", "batch", "prompt", "side", "model built, MB", "peak, MB", "of the accelerator, MB"]
    rows = (
        [
            names[each.case],
            each.batch,
            each.prompt,
            each.side,
            _megabytes(each.built),
            _megabytes(each.peak),
            "none" if each.device_peak is None else _megabytes(each.device_peak),
        ]
        for each in figures
    )
    return table(header, rows)


def search_table(figures: Sequence[TrialFigures]) -> str:
    """Return the seconds of each trial and of all of them."""
    total = TrialFigures("all", sum(each.ours for each in figures), sum(each.pyreft for each in figures))
    rows = (
        [each.recipe, f"{each.ours:.1f}", f"{each.pyreft:.1f}", f"{each.pyreft / each.ours:.2f}"]
        for each in (*figures, total)
    )
    return table(["recipe", "ours, s", "pyreft, s", "pyreft / ours"], rows)


def operation_table(figures: Sequence[StepOperations], names: Mapping[str, str]) -> str:
    """Return how many times our operations pyreft's are, in the step that fills the cone and in one after it."""
    header = ["case", "warm step, pyreft / ours", "first step, pyreft / ours"]
    header += [f"{who}, GFLOP" for who in ("pyreft", "ours, first", "ours, warm")]
    rows = (
        [
            names[each.case],
            f"{each.pyreft / each.warm:.2f}",
            f"{each.pyreft / each.first:.2f}",
            *(f"{operations / 1e9:.1f}" for operations in (each.pyreft, each.first, each.warm)),
        ]
        for each in figures
    )
    return table(header, rows)


def beside_table(figures: Sequence[BesideFigures], names: Mapping[str, str]) -> str:
    """Return how many times our operations and our seconds pyreft's are, by threads and processes."""
    header = ["case", "threads", "processes", "operations, pyreft / ours", "time, pyreft / ours"]
    header += ["ours, ms", "pyreft, ms", "ours, GFLOP", "pyreft, GFLOP"]
    rows = (
        [
            names[each.case],
            each.threads,
            each.processes,
            f"{each.operations[PYREFT] / each.operations[OURS]:.2f}",
            Ratio.of(each.seconds[PYREFT], each.seconds[OURS]),
            *(milliseconds(each.seconds[who]) for who in (OURS, PYREFT)),
            *(f"{each.operations[who] / 1e9:.1f}" for who in (OURS, PYREFT)),
        ]
        for each in figures
    )
    return table(header, rows)


def gap_table(gap: Gap) -> str:
    """Return by kind what both sides' steps take beyond their operations at the quicker side's rate of products."""
    sides = {OURS: gap.ours, PYREFT: gap.pyreft}
    beyond = {who: side.beyond(gap.rate) for who, side in sides.items()}
    most = {share.group: share.most for share in gap.ours.shares}
    whole = sum(beyond[OURS].values())
    rows = [
        [
            name,
            *(f"{beyond[who].get(name, 0.0) * 1e3:.1f}" for who in sides),
            f"{seconds / whole:.0%}",
            ", ".join(f"{what} {took * 1e3:.1f}" for what, took in most.get(name, ())),
        ]
        for name, seconds in sorted(beyond[OURS].items(), key=lambda item: -item[1])
    ]
    arithmetic = [f"{side.operations / gap.rate * 1e3:.1f}" for side in sides.values()]
    rows = [[f"operations at {gap.rate / 1e9:.1f} GFLOP/s", *arithmetic, "", ""], *rows]
    header = ["what", "ours, ms", "pyreft, ms", "of ours beyond operations", "most of ours, ms"]
    said = [
        f"Operations, pyreft / ours: {gap.pyreft.operations / gap.ours.operations:.2f}; time without the profiler: "
        f"{gap.pyreft.seconds / gap.ours.seconds:.2f}. Of what ours takes beyond operations {gap.told:.0%} has a name.",
        *(
            f"{who}: {side.seconds * 1e3:.0f} ms without the profiler, {side.profiled * 1e3:.0f} ms under it; "
            f"{side.kernel * 1e3:.0f} ms in the operating system, which gave {side.faults:.0f} pages anew."
            for who, side in sides.items()
        ),
    ]
    return table(header, rows) + "\n" + "\n".join(said) + "\n"


def milliseconds(timing: Timing) -> str:
    """Return the median in milliseconds, to the precision that a timing has."""
    value = timing.median * 1e3
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}"


def _megabytes(number: int) -> str:
    return f"{number / 1e6:.0f}"
