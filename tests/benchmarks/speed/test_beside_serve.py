"""The comparison of two servers counts what each of them wrote."""

from __future__ import annotations

import pytest

from benchmarks.sides.timing import Timing
from benchmarks.speed.beside_serve import CHAMPION, OURS, THEIRS, Figures, figures_table


def test_a_ratio_is_of_tokens_a_second() -> None:
    """Twice the time for half of the tokens is a quarter of the rate; a slow round of all changes no ratio."""
    seconds = {OURS: Timing((1.0, 10.0, 1.0)), CHAMPION: Timing((1.0, 10.0, 1.0)), THEIRS: Timing((2.0, 20.0, 2.0))}
    figures = Figures(16, {OURS: 640, CHAMPION: 640, THEIRS: 320}, seconds, 1.0)
    assert figures.rate(OURS) == pytest.approx(640.0)
    cells = [line.split("|")[1:-1] for line in figures_table(figures).splitlines()[2:]]
    found = {name.strip(): (float(rate), float(times)) for name, _, rate, times in cells}
    assert found == {OURS: (640.0, 1.0), CHAMPION: (640.0, 1.0), THEIRS: (160.0, 4.0)}
