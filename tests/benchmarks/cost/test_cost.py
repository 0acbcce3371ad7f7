"""The cost model: what it counts is what torch counts, and its rules on rates that are made up."""

from __future__ import annotations

import re
import time
from dataclasses import replace

import pytest
import torch

from benchmarks.cost import check as check_room
from benchmarks.cost.article import A10, A100, LLAMA_7B, PAPER, README, lines, minutes
from benchmarks.cost.check import contenders, operations, recipe_of, training
from benchmarks.cost.measured import measure_rates
from benchmarks.cost.step import Contender, Recipe, Rows, Shape, rows_of, step
from benchmarks.cost.work import Rates, Work
from benchmarks.sides.operations import Counted
from benchmarks.sides.ours import CASES
from benchmarks.sides.random_base import random_subject, shape_config
from reft import Encoded
from tests.arrows import ROOT

RATES = Rates("made up", ((10.0, 100.0), (1000.0, 300.0)), ((1.0, 50.0),), launch=0.5, queued=False)


def test_a_kernel_takes_as_long_as_the_slowest_of_its_operations_bytes_and_logits() -> None:
    assert RATES.seconds([Work("", 200.0, 10.0, 10)]) == 0.5 + 2.0
    assert RATES.seconds([Work("", 200.0, 500.0, 10, kernels=3)]) == 3 * (0.5 + 10.0)
    slow = replace(RATES, losses=((1.0, 2.0),))
    assert slow.seconds([Work("", 0.0, 500.0, 0, logits=30.0)]) == 0.5 + 15.0
    assert slow.seconds([Work("", 0.0, 500.0, 0, logits=10.0)]) == 0.5 + 10.0
    assert RATES.seconds([Work("", 0.0, 500.0, 0, logits=30.0)]) == 0.5 + 10.0


def test_a_rate_between_measured_rows_is_on_a_line_over_their_logarithm() -> None:
    assert RATES.seconds([Work("", 200.0, 0.0, 100)]) == pytest.approx(0.5 + 200 / 200)
    assert RATES.seconds([Work("", 300.0, 0.0, 5000)]) == pytest.approx(0.5 + 300 / 300)


def test_a_queue_hides_the_starts_behind_the_work_or_the_work_behind_the_starts() -> None:
    queued = Rates("made up", RATES.products, RATES.traffic, launch=0.5, queued=True)
    assert queued.seconds([Work("", 200.0, 0.0, 10)]) == 2.0
    assert queued.seconds([Work("", 1.0, 0.0, 10, kernels=4)]) == 4 * 0.5


@pytest.mark.parametrize("who", [name for name in contenders() if name != "pyreft"])
@pytest.mark.parametrize("case", ["a", "d"])
def test_the_operations_of_a_step_are_those_that_torch_counts(case: str, who: Contender) -> None:
    """But for what is too small to be told apart here: R's own products and AdamW."""
    subject = random_subject("tiny", torch.device("cpu"), torch.float32, texts=2)
    config = CASES[case].config(subject.num_layers)
    rows = [row for row in subject.rows(40, 2) for _ in range(2)]
    own = training(who, subject, config, rows, 4)
    own.step()
    with Counted() as counted:
        own.step()
    works = step(Shape.of(subject.base.config, 4), recipe_of(config), rows_of(rows), who)
    assert operations(works) == pytest.approx(counted.operations, rel=0.1)


def test_steps_are_held_against_rates_of_their_own_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of three rounds of a machine that halts in one, the middle one counts on both sides."""
    monkeypatch.setattr(check_room, "find_spec", lambda _name: None)
    subject = random_subject("tiny", torch.device("cpu"), torch.float32, texts=2)
    found = iter(replace(RATES, launch=launch) for launch in (0.5, 4.0, 1.0))
    checked = list(check_room.check(subject, lambda: next(found), [CASES["d"]], batch=2, prompt=20, repeats=3))
    assert [each.contender for each in checked] == ["ours", "floor"]
    recipe, rows = recipe_of(CASES["d"].config(subject.num_layers)), sorted(subject.rows(20, 4), key=_tokens)
    for each in checked:
        works = [
            work.times(0.5)
            for batch in (rows[:2], rows[2:])
            for work in step(Shape.of(subject.base.config, 4), recipe, rows_of(batch), each.contender)
        ]
        assert each.predicted == pytest.approx(replace(RATES, launch=1.0).seconds(works))
        assert each.measured > 0


def _tokens(row: Encoded) -> int:
    return row.num_tokens


def test_starting_a_kernel_takes_what_a_step_of_a_small_base_shows() -> None:
    """An operation by itself, without modules and autograd around it, is started sooner."""
    rates = measure_rates(
        torch.device("cpu"), torch.float32, inner=8, columns=8, vocabulary=64, seconds=0.002, largest=16
    )
    one, started = torch.ones(1), time.perf_counter()
    for _ in range(1000):
        torch.add(one, 1)
    assert rates.launch > (time.perf_counter() - started) / 1000 > 0


# Of two cores of a CPU that others used too, by `python -m benchmarks.cost check`.
MEASURED = Rates(
    "a CPU",
    ((16.0, 17.0e9), (64.0, 22.6e9), (128.0, 31.3e9), (512.0, 39.4e9), (4096.0, 39.0e9)),
    ((4096.0, 5.3e9), (65536.0, 7.3e9), (1048576.0, 25e9), (16777216.0, 10.5e9), (268435456.0, 1.37e9)),
    launch=8.6e-6,
    queued=False,
)
ROWS = {110: 8, 512: 4}  # of a step in the table, by the tokens of a prompt


def measured_ratios() -> dict[tuple[str, int], tuple[float, ...]]:
    """The table of docs/cone.md: of each recipe and prompt, the times of pyreft, LoRA and the floor in ours."""
    page = (ROOT / "docs" / "cone.md").read_text(encoding="utf-8")
    found = re.findall(r"^\| \(([a-d])\) [^|]*\| (\d+) \| ([\d.]+) \| ([\d.]+) \| ([\d.]+) \|$", page, re.MULTILINE)
    return {(case, int(prompt)): tuple(float(each) for each in ratios) for case, prompt, *ratios in found}


def test_the_model_is_within_30_percent_of_what_was_measured() -> None:
    shape, measured = Shape.of(shape_config("SmolLM2-135M"), 4), measured_ratios()
    assert len(measured) == 6
    for (case, prompt), ratios in measured.items():
        recipe = recipe_of(CASES[case].config(shape.layers))
        rows = Rows(ROWS[prompt], prompt, 10)
        ours, *others = (
            MEASURED.seconds(step(shape, recipe, rows, who)) for who in ("ours", "pyreft", "LoRA", "floor")
        )
        assert [other / ours for other in others] == pytest.approx(ratios, rel=0.3), (case, prompt)


def test_the_cone_spares_what_it_leaves_out() -> None:
    shape, rows = Shape.of(shape_config("Llama-3-8B"), 2), Rows(8, 512, 10)
    early, late = Recipe((0,), 0, 4, 8), Recipe((30,), 0, 4, 8)
    ours, whole = (operations(step(shape, early, rows, who)) for who in ("ours", "floor"))
    assert ours < whole / 25  # 13 of 521 tokens run, and the head on 10
    assert operations(step(shape, late, rows, "ours")) < ours / 10  # one layer of thirty-one


def test_the_published_example_is_told_with_what_it_assumes() -> None:
    said = "\n".join(lines())
    for word in (
        A10.device,
        "125 TFLOP/s",
        "600 GB/s",
        "1000 rows",
        "9 epochs",
        "13.7 minutes",
        "The authors say 18 minutes",
    ):
        assert word in said
    assert minutes(README, "ours") < minutes(README, "pyreft")
    # The one published time whose recipe is known: the assumed shares of a data sheet are judged by it.
    assert minutes(README, "pyreft", LLAMA_7B, A100) == pytest.approx(PAPER, rel=0.3)
