"""Drift by hand: each file beside those before it, and the gate's decisions in their order."""

from __future__ import annotations

from pathlib import Path

import pytest
from matplotlib.image import imread

from pipelines.contracts.predictions import Prediction, Said
from pipelines.contracts.prepared import Row
from pipelines.contracts.verdict import Decision, Verdict
from pipelines.reports.drift import drift, drift_page
from pipelines.reports.drift_plot import draw_drift


def rows(part: str, texts: list[str], label: str = "bad") -> list[Row]:
    return [Row(f"data/own/reviews/{part}:{n}", text, f" {label}", label=label) for n, text in enumerate(texts)]


def answered(part: str, *values: str) -> list[Prediction]:
    return [
        Prediction(f"data/own/reviews/{part}:{n}", "", Said(value), Said("bad"), label="bad")
        for n, value in enumerate(values)
    ]


def decision(version: int, day: str, **values: float) -> Decision:
    verdict = Verdict(
        promote=False, reasons=("no",), asked=True, measure="macro_f1", rows=50, units=50, left_out=0, look=1,
        level=0.01, values=values, over_champion=None, over_base=None, over_majority=None, detectable=None, slices={},
        figures={},
    )  # fmt: skip
    return Decision("k", "m", version, 1, f"{day}T03:00:00+00:00", None, promoted=False, dry=False, verdict=verdict)


def test_a_file_is_told_beside_those_before_it_in_the_order_of_their_names() -> None:
    later = rows("2026-02.csv", ["a b", "a c c", "a"], "good")
    first, second = drift(
        [*later, *rows("2026-01.csv", ["a b", "b"])],
        answered("2026-02.csv", "good", "bad", "good", "good"),
    )
    assert (first.name, first.rows, first.length, first.new_words) == ("2026-01.csv", 2, 2.0, None)  # of 3 and 1
    assert (second.name, second.rows, second.length) == ("2026-02.csv", 3, 3.0)  # of 3, 5 and 1
    assert second.new_words == pytest.approx(2 / 6)  # c, twice, of six words
    assert (first.labels, second.labels) == ({"bad": 1.0}, {"good": 1.0})
    assert (first.answers, second.answers) == ({}, {"bad": 0.25, "good": 0.75})
    assert (second.length_p, second.labels_p) == (None, None)  # too few rows for a p-value


def test_other_lengths_and_labels_show_and_equal_ones_do_not() -> None:
    """The chi-square of [[40, 0], [0, 40]] is 80 with one degree of freedom, p = 3.7e-19; of equal rows it is 0."""
    short, long = [f"w{n % 7}" for n in range(40)], [f"w{n % 7} and much more" for n in range(40)]
    *_, same = drift([*rows("1.csv", short), *rows("2.csv", short)], [])
    *_, other = drift([*rows("1.csv", short), *rows("2.csv", long, "good")], [])
    assert (same.length_p, same.labels_p) == (1.0, None)  # there is one label
    assert other.labels_p == pytest.approx(3.7e-19, rel=0.05)
    assert other.length_p is not None
    assert other.length_p < 1e-12


def test_page_and_picture_hold_any_names_and_what_is_missing(tmp_path: Path) -> None:
    parts = drift([*rows("1_$x^{$.csv", ["a"], "$|x"), *rows("2.csv", ["b"])], answered("2.csv", "$|x"))
    told = [
        decision(2, "2026-01-05", challenger=0.5, base=0.4),
        decision(3, "2026-01-12", champion=0.5, challenger=0.6),
    ]
    page = drift_page(parts, told)
    assert "| 2026-01-12T03:00:00+00:00 | 50 | version 1 | 50.0 % | version 3 | 60.0 % | – | no |" in page
    assert r"$\|x" in page
    draw_drift(tmp_path / "drift.png", parts, told)
    assert imread(tmp_path / "drift.png").size > 0
    draw_drift(tmp_path / "none.png", parts, [])
    assert "The gate was not asked yet." in drift_page(parts, [])
