"""What is tried next: the named recipes first, then what the sampler chooses, and no recipe twice."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution
from optuna.trial import FrozenTrial, TrialState, create_trial

from pipelines.project.settings import StudySettings
from pipelines.search.goal import LOSSES
from pipelines.search.next_step import is_over
from pipelines.search.proposals import Point, propose, random_point
from pipelines.search.study import ENQUEUED, ERROR, RETRY_OF
from tests.searching import RAW, make_params

SMALL: dict[str, Any] = {
    "search.space.layers": ["all", "::2"],
    "search.space.positions": ["l1", "l4"],
    "search.space.rank": [1, 4],
    "search.space.learning_rate": [0.001],
    "search.enqueue": [],
}
NOW = datetime.datetime(2026, 1, 1)


def small(changes: Mapping[str, Any]) -> StudySettings:
    """Those of a small job."""
    return StudySettings.of(make_params(changes))


def default(**search: Any) -> StudySettings:
    """The space of params.yaml, with other settings."""
    kept = {f"search.{key}": RAW["search"][key] for key in ("space", "enqueue")}
    return small({**kept, **{f"search.{key}": value for key, value in search.items()}})


def trial_of(point: Point, settings: StudySettings, number: int, value: float | None, **attributes: Any) -> FrozenTrial:
    """A trial as the study holds it; without a value it runs."""
    distributions = {}
    for part in point:
        domain: Any = settings.recipes.space.domain(part)  # type: ignore[arg-type]
        if isinstance(domain, list):
            distributions[part] = CategoricalDistribution(domain)
        else:
            distributions[part] = FloatDistribution(domain.low, domain.high, log=domain.log)  # type: ignore[assignment]
    state = TrialState.RUNNING if value is None else TrialState.COMPLETE
    trial = create_trial(
        state=TrialState.COMPLETE, value=0.0, params=point, distributions=distributions,
        user_attrs=attributes, system_attrs={"fixed_params": point},
    )  # fmt: skip
    trial.state, trial.number = state, number
    trial.value = value
    trial.datetime_start = NOW
    trial.datetime_complete = None if value is None else NOW + datetime.timedelta(seconds=number)
    return trial


def killed(trial: FrozenTrial) -> FrozenTrial:
    trial.state, trial.value, trial.datetime_complete = TrialState.FAIL, None, NOW
    return trial


def proposals(
    settings: StudySettings, count: int, allowed: Callable[[Point], bool] = lambda point: True, *, layers: int = 4
) -> list[tuple[Point, dict[str, object]]]:
    """What is proposed when each proposal is run and scored by its learning rate."""
    trials: list[FrozenTrial] = []
    found: list[tuple[Point, dict[str, object]]] = []
    first = [dict(point) for point in settings.recipes.first]
    for number in range(count):
        proposal = propose(trials, settings, first=first, num_layers=layers, allowed=allowed)
        if proposal is None:
            break
        found.append(proposal)
        trials.append(trial_of(proposal[0], settings, number, proposal[0]["learning_rate"], **proposal[1]))
    return found


def points(found: list[tuple[Point, dict[str, object]]]) -> list[tuple[Any, ...]]:
    return [tuple(point[part] for part in ("layers", "positions", "rank", "learning_rate")) for point, _ in found]


def test_the_named_recipes_come_first_in_their_order() -> None:
    found = proposals(default(), 3)
    assert [point for point, _ in found[:2]] == RAW["search"]["enqueue"]
    assert found[0][0] == {"layers": "all", "positions": "l4", "rank": 8, "learning_rate": 9e-4}
    assert [attributes for _, attributes in found] == [{ENQUEUED: 0}, {ENQUEUED: 1}, {}]


@pytest.mark.parametrize("sampler", ["tpe", "random", "grid", "qmc"])
def test_every_point_of_a_small_space_is_proposed_once(sampler: str) -> None:
    found = points(proposals(small({**SMALL, "search.sampler": sampler}), 20))
    assert len(found) == len(set(found)) == 8


@pytest.mark.parametrize("sampler", ["tpe", "gp", "qmc"])
def test_a_sampler_draws_the_same_from_the_same_trials_and_learns_or_fills(sampler: str) -> None:
    settings = default(sampler=sampler)
    found = proposals(settings, 9)
    assert found == proposals(settings, 9)
    assert len(set(points(found))) == 9
    assert all(settings.recipes.space.problems(point) == [] for point, _ in found)


def test_two_choices_of_the_same_layers_are_one_recipe() -> None:
    settings = small({**SMALL, "search.space.layers": ["all", "0:4", "0,1,2,3"], "search.sampler": "random"})
    assert len(proposals(settings, 20)) == 4


def test_a_running_recipe_is_not_proposed_again_and_a_killed_one_is_repeated_by_its_trial_alone() -> None:
    settings = small({**SMALL, "search.space.rank": [1], "search.space.layers": ["all"]})
    running = trial_of({"layers": "all", "positions": "l1", "rank": 1, "learning_rate": 0.001}, settings, 0, None)
    found = propose([running], settings, first=[], num_layers=4, allowed=lambda point: True)
    assert found is not None
    assert found[0]["positions"] == "l4"
    other = trial_of(found[0], settings, 1, None)
    assert propose([running, other], settings, first=[], num_layers=4, allowed=lambda point: True) is None
    repeated = [killed(running), trial_of(point_of_running(running), settings, 1, 0.5, **{RETRY_OF: 0})]
    found = propose(repeated, settings, first=[], num_layers=4, allowed=lambda point: True)
    assert found is not None
    assert found[0]["positions"] == "l4"


def point_of_running(trial: FrozenTrial) -> Point:
    return dict(trial.system_attrs["fixed_params"])


def test_a_recipe_that_failed_is_not_tried_again() -> None:
    settings = small({**SMALL, "search.space.rank": [1], "search.space.layers": ["all"]})
    failed = killed(
        trial_of(
            {"layers": "all", "positions": "l1", "rank": 1, "learning_rate": 0.001}, settings, 0, 0.5, **{ERROR: "x"}
        )
    )
    found = propose([failed], settings, first=[], num_layers=4, allowed=lambda point: True)
    assert found is not None
    assert found[0]["positions"] == "l4"


def test_what_is_not_allowed_is_never_proposed() -> None:
    def least(point: Point) -> bool:
        return bool(point["rank"] == 1)

    for sampler in ("tpe", "random", "grid"):
        found = proposals(small({**SMALL, "search.sampler": sampler}), 20, least)
        assert [point["rank"] for point, _ in found] == [1] * 4


def test_a_named_recipe_that_is_not_allowed_is_passed_over() -> None:
    found = proposals(default(), 2, lambda point: (point["positions"], point["learning_rate"]) != ("l4", 9e-4))
    assert found[0] == (RAW["search"]["enqueue"][1], {ENQUEUED: 1})


def test_points_by_chance_are_spread_over_the_space_as_its_scales_say() -> None:
    space, rng = default().search.space, np.random.default_rng(0)
    found = [random_point(space, rng) for _ in range(2000)]
    rates = np.array([point["learning_rate"] for point in found])
    domain: Any = space.domain("learning_rate")
    middle = np.sqrt(domain.low * domain.high)
    assert ((rates >= domain.low) & (rates <= domain.high)).all()
    assert abs((rates < middle).mean() - 0.5) < 0.05  # the middle of a logarithmic scale
    shares = [sum(point["rank"] == rank for point in found) / len(found) for rank in (1, 4, 8)]
    assert shares == pytest.approx([1 / 3] * 3, abs=0.05)


def test_the_budget_counts_the_time_of_trials_that_a_person_stopped() -> None:
    settings = default(seconds=10.0)
    ended = trial_of({"rank": 1}, settings, 0, 0.5, costs={"seconds": 4.0})
    stopped = killed(trial_of({"rank": 1}, settings, 1, 0.5, costs={"seconds": 6.5}, interrupted=True))
    assert is_over([ended, stopped], settings.search)
    assert not is_over([ended, killed(trial_of({"rank": 1}, settings, 1, 0.5))], settings.search)


@pytest.mark.parametrize(("sampler", "judge"), [("tpe", "measure"), ("gp", "measure"), ("tpe", "loss")])
def test_numbers_of_a_list_are_learned_from_in_their_order(sampler: str, judge: str) -> None:
    """High ranks were good: of two that nobody tried, 24 is proposed, and not 2."""
    ranks, unknown = [16, 2, 1, 32, 3, 24, 4, 12, 6], (24, 2)  # in no matter which order
    changes = {"search.space.rank": ranks, "search.space.learning_rate": {"low": 1e-4, "high": 1e-2, "log": True}}
    proposed = []
    for seed in range(12 if sampler == "tpe" else 4):
        settings = small({**SMALL, **changes, "search.sampler": sampler, "seed": seed})
        tried = [1, 3, 4, 6, 12, 16, 32] * 2
        trials = [
            trial_of(
                {"layers": "all", "positions": "l4", "rank": rank, "learning_rate": 1e-3 * (1 + place / 10)},
                settings, place, rank / 32 if judge == "measure" else 0.5,
                **({} if judge == "measure" else {LOSSES: {"1": 9.0, "2": 1 - rank / 32}}),
            )
            for place, rank in enumerate(tried)
        ]  # fmt: skip
        found = propose(trials, settings, first=[], num_layers=4, allowed=lambda point: point["rank"] in unknown)
        assert found is not None
        proposed.append(found[0]["rank"])
    assert set(proposed) == {24}, proposed


def test_a_recipe_that_runs_elsewhere_keeps_a_sampler_from_its_neighbourhood() -> None:
    """Of the same trials that ended, those that run in other processes change what is proposed."""
    settings = small({**SMALL, "search.space.learning_rate": {"low": 1e-4, "high": 1e-2, "log": True}})
    point = {"layers": "all", "positions": "l4", "rank": 4}
    rates = np.geomspace(1e-4, 1e-2, 12)
    # The best are at 1e-3; with workers at work there, the next one looks elsewhere.
    ended = [
        trial_of({**point, "learning_rate": float(rate)}, settings, place, -abs(float(np.log10(rate)) + 3))
        for place, rate in enumerate(rates)
    ]
    running = [
        trial_of({**point, "learning_rate": float(rate)}, settings, len(ended) + place, None)
        for place, rate in enumerate(np.geomspace(8e-4, 1.25e-3, 8))
    ]
    distances = []
    for trials in (ended, ended + running):
        drawn = []
        for seed in range(10):
            seeded = replace(settings, seed=seed)
            found = propose(trials, seeded, first=[], num_layers=4, allowed=lambda point: True)
            assert found is not None
            drawn.append(abs(np.log10(found[0]["learning_rate"]) + 3))
        distances.append(float(np.mean(drawn)))
    assert distances[1] > distances[0], distances
