"""Which recipe is trained: by accuracy, size, limits, front and other seeds; from made-up trials, by hand."""

from __future__ import annotations

from typing import Any

import pytest

from pipelines.contracts.trials import TrialRecord
from pipelines.errors import PipelineError
from pipelines.search.choice import Rule, candidates, choose, confirmed, front
from pipelines.tasks.measures import Proportion
from tests.searching import make_params


def record(number: int, *values: float, parameters: int = 100, **other: Any) -> TrialRecord:
    """A complete trial with these values of the objectives, unless said otherwise."""
    fields: dict[str, Any] = {
        "state": "complete" if values else "fail", "value": values[0] if values else None, "values": values,
        "params": {"rank": number}, "seed": 42, "intermediate": {}, "seconds": 1.0, "fill_seconds": 0.0, "tokens": 1,
        "memory_mb": 1.0, "over": (), "enqueued": None, "error": None,
    }  # fmt: skip
    return TrialRecord(number=number, parameters=parameters, **{**fields, **other})


def rule(rows: int = 200, **search: Any) -> Rule:
    changes = {f"search.{key}": value for key, value in {"choose": "best", **search}.items()}
    return Rule(
        make_params(changes).search, Proportion("accuracy"), training_rows=1000, validation_rows=rows, confidence=0.95
    )


def test_the_most_accurate_wins_of_equal_ones_the_smaller_then_the_earlier() -> None:
    records = [record(0, 0.8), record(1, 0.9, parameters=300), record(2, 0.9, parameters=200)]
    assert choose(records, [], rule()).record.number == 2
    assert choose([*records, record(3, 0.9, parameters=200)], [], rule()).record.number == 2
    chosen = choose(records, [], rule())
    assert (chosen.value, chosen.spread) == (0.9, None)


def test_what_failed_was_pruned_or_is_over_a_limit_is_not_chosen() -> None:
    records = [
        record(0, 0.7),
        record(1, 0.99, over=("seconds",)),
        record(2, error="NonFiniteLossError: nan"),
        record(3, state="pruned", intermediate={1: 0.99}),
    ]
    assert choose(records, [], rule()).record.number == 0
    with pytest.raises(PipelineError, match="at least one trial must be complete") as caught:
        choose(records[1:], [], rule())
    assert "over ('seconds',)" in str(caught.value)
    assert "NonFiniteLossError: nan" in str(caught.value)
    with pytest.raises(PipelineError, match="no trial"):
        choose([], [], rule())


def test_the_smallest_is_the_one_with_fewest_parameters_within_a_standard_error_of_the_best() -> None:
    """The standard error of 180 right of 200 is the root of 0.9 * 0.1 / 200: 0.0212."""
    records = [record(0, 0.9, parameters=900), record(1, 0.88, parameters=90), record(2, 0.86, parameters=9)]
    assert rule().least(0.9, 200) == pytest.approx(0.8788, abs=5e-5)
    assert choose(records, [], rule(choose="smallest")).record.number == 1
    assert choose(records, [], rule(rows=50, choose="smallest")).record.number == 2
    assert choose(records, [], rule(rows=50)).record.number == 0


def test_a_front_holds_what_is_not_beaten_in_everything() -> None:
    settings = rule(objectives=["accuracy", "parameters"]).settings
    records = [
        record(0, 0.9, 100.0),
        record(1, 0.8, 50.0),
        record(2, 0.8, 60.0),  # beaten by 1
        record(3, 0.9, 100.0),  # as good as 0: neither beats the other
        record(4, 0.7, 50.0),  # beaten by 1
        record(5, 0.95, 90.0, over=("memory_mb",)),
    ]
    assert [one.number for one in front(records, settings)] == [0, 1, 3]


def test_the_candidates_are_the_best_one_and_what_the_rule_would_take_next() -> None:
    records = [record(0, 0.9, parameters=900), record(1, 0.89, parameters=500), record(2, 0.88, parameters=90)]
    assert candidates(records, rule()) == []
    confirm = {"top": 2, "seeds": 2}
    assert [one.number for one in candidates(records, rule(confirm=confirm))] == [0, 1]
    assert [one.number for one in candidates(records, rule(confirm=confirm, choose="smallest"))] == [0, 2]
    assert len(candidates(records, rule(confirm={"top": 9, "seeds": 1}))) == 3
    tried_first = [*records, record(3, 0.5, enqueued=0), record(4, 0.6, enqueued=1)]
    assert [one.number for one in candidates(tried_first, rule(confirm=confirm))] == [0, 1, 3]
    assert [one.number for one in candidates([record(0, 0.9, enqueued=0), *records[1:]], rule(confirm=confirm))] == [
        0,
        1,
    ]


def test_other_seeds_decide_by_the_mean_and_a_recipe_that_does_not_stand_one_is_out() -> None:
    """The accuracy that a recipe was picked for does not count: by it, trial 0 would have the best mean of three."""
    records = [record(0, 0.99), record(1, 0.8), record(2, 0.91)]
    runs = [
        confirmed(0, {42: 0.99, 43: 0.80, 44: 0.84}, seconds=1.0),
        confirmed(1, {42: 0.80, 43: 0.83, 44: 0.85}, seconds=1.0),
        confirmed(2, {42: 0.91, 43: None, 44: 0.99}, seconds=1.0),
    ]
    assert runs[0].mean == pytest.approx(0.82)
    assert runs[1].spread == pytest.approx(0.01 * 2**0.5)
    assert (runs[2].mean, runs[2].spread) == (None, None)
    chosen = choose(records, runs, rule(confirm={"top": 3, "seeds": 2}))
    assert chosen.record.number == 1
    assert (chosen.value, chosen.spread) == (pytest.approx(0.84), runs[1].spread)
    assert chosen.rows == 400
    assert confirmed(0, {42: 0.9, 43: 0.8}, seconds=1.0).spread is None
    with pytest.raises(PipelineError, match="must train with other seeds too"):
        choose(records, runs[2:], rule())


def test_judged_by_the_loss_the_lowest_wins_and_the_measure_is_what_is_shown() -> None:
    records = [record(0, 0.9, loss=0.7), record(1, 0.8, loss=0.4), record(2, 0.7, loss=0.5)]
    chosen = choose(records, [], rule(judge="loss"))
    assert (chosen.record.number, chosen.value) == (1, 0.8)
    again = candidates(records, rule(judge="loss", confirm={"top": 2, "seeds": 1}))
    assert [one.number for one in again] == [1, 2]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"search.choose": "smallest"}, "choose: smallest counts standard errors of the measure"),
        ({"search.choose": "best", "search.objectives": ["accuracy", "parameters"]}, "judged by the measure"),
    ],
)
def test_where_only_the_measure_can_decide_the_loss_is_refused(changes: dict[str, Any], said: str) -> None:
    make_params({**changes, "search.judge": "measure"})
    with pytest.raises(PipelineError, match=said):
        make_params({**changes, "search.judge": "loss"})
