"""The gate decides from numbers alone: equal adapters over many years, and planted cases."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from scipy import stats

from pipelines.contracts.identities import Identity, Seen
from pipelines.contracts.verdict import Verdict
from pipelines.model.intervals import numbered
from pipelines.params.gate import GateParams
from pipelines.registry.gate import Contest, Side, decide, level_of
from pipelines.registry.paired import Drawing, Pair, chance, lead, shown
from pipelines.tasks.measures import Correlation, Floats, Mean, Proportion

RAW = yaml.safe_load((Path(__file__).parents[3] / "params.yaml").read_text(encoding="utf-8"))["gate"]
SETTINGS = GateParams.model_validate(RAW)
DRAWING = Drawing(confidence=0.95, resamples=200, seed=0)
NOTHING_SEEN = Seen(frozenset(), frozenset())
ROWS = 400


def settings(**changes: Any) -> GateParams:
    return GateParams.model_validate({**RAW, **changes})


def side(scores: Floats, **changes: Any) -> Side:
    ids = tuple(f"a:{place + 1}" for place in range(len(scores)))
    return replace(Side(ids, scores, seen=NOTHING_SEEN, unreadable=0.0, megabytes=0.1, milliseconds=5.0), **changes)


def contest(challenger: Floats, champion: Floats | None, base: Floats, **changes: Any) -> Contest:
    rows = [Identity(f"a:{place + 1}", "test", f"text {place}", None) for place in range(len(challenger))]
    made = Contest(
        Proportion("accuracy"), rows, [("negative", "positive")[place % 2] for place in range(len(rows))],
        side(challenger), None if champion is None else side(champion), side(base), None,
    )  # fmt: skip
    return replace(made, **changes)


def among(systems: str, **changes: Any) -> Contest:
    """The better challenger against the champion, with something of one of them changed."""
    made = contest(BETTER, CHAMPION, BASE)
    return replace(made, **{systems: replace(getattr(made, systems), **changes)})


def right(share: float, rows: int = ROWS) -> Floats:
    """Scores of which the first part is right, in labels by turns."""
    return (np.arange(rows) < round(share * rows)).astype(np.float64)


def verdict(found: Contest, look: int = 1, **changes: Any) -> Verdict:
    return decide(found, settings(**changes), DRAWING, look=look)


# --- equal adapters --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("planned", [1, 10, 52])
def test_all_looks_for_ever_spend_the_stated_share(planned: int) -> None:
    looks = settings(looks=planned)
    assert sum(level_of(looks, look) for look in range(1, planned + 1)) == pytest.approx(0.05 / 2)
    assert sum(level_of(looks, look) for look in range(1, 200_000)) == pytest.approx(0.05, rel=1e-3)


def year_promotes(generator: np.random.Generator, looks: int, given: GateParams, *, size: int) -> bool:
    """Whether any of a year's challengers, each as good as the champion on any row, is promoted.

    The champion and the rows stay, so the looks depend on each other. Rows of a group are right or wrong together.
    """
    groups = 60

    def drawn() -> Floats:
        return np.repeat(generator.random(groups) < 0.8, size).astype(np.float64)

    champion, base = side(drawn()), right(0.3, groups * size)
    made = contest(champion.scores, champion.scores, base, labels=[""] * len(base))
    made = replace(made, rows=[replace(row, group=f"group {place // size}") for place, row in enumerate(made.rows)])
    for look in range(1, looks + 1):
        found = replace(made, challenger=replace(champion, scores=drawn()))
        if decide(found, given, Drawing(0.95, 100, 0), look=look).promote:
            return True
    return False


@pytest.mark.parametrize(
    ("size", "years"),
    [(1, 100), pytest.param(1, 1000, marks=pytest.mark.long), pytest.param(4, 1000, marks=pytest.mark.long)],
)
def test_years_of_ten_looks_at_equals_promote_in_at_most_the_stated_share(size: int, years: int) -> None:
    """With looks: 1, which spends most of it on the first ten. Of 1,000 years at 5 %, 73 are too many (p < 0.001)."""
    generator = np.random.default_rng(0)
    given = settings(looks=1, least_gain=0.0, least_rows=15, limits=dict.fromkeys(RAW["limits"]))
    promoted = sum(year_promotes(generator, 10, given, size=size) for _ in range(years))
    print(f"{promoted} of {years} years, units of {size} rows")  # pytest -s shows it
    assert 0 < promoted <= stats.binom.ppf(0.999, years, given.false_promotions)


def test_without_spending_equals_would_be_promoted_more_often_than_stated() -> None:
    """What the looks are counted for: each at the whole share, ten of them find a champion in far more years."""
    generator = np.random.default_rng(0)
    given = settings(least_gain=0.0, limits=dict.fromkeys(RAW["limits"]))
    promoted = 0
    for _ in range(200):
        champion = (generator.random(400) < 0.8).astype(np.float64)
        looks = ((generator.random(400) < 0.8).astype(np.float64) for _ in range(10))
        units = np.arange(400)
        pairs = (Pair(Proportion("accuracy"), challenger, champion, units) for challenger in looks)
        promoted += any(chance(pair, DRAWING, level=0.05) < given.false_promotions for pair in pairs)
    assert promoted / 200 > 2 * given.false_promotions


# --- planted cases ---------------------------------------------------------------------------------------------------

BASE, CHAMPION, BETTER = right(0.4), right(0.7), right(0.8)


def broken_slice() -> Floats:
    """Of 200 negative rows 116 are right, where the champion has 140; of the positive ones all, where it has 140."""
    return np.where(np.arange(ROWS) % 2, 1.0, np.arange(ROWS) < 232).astype(np.float64)


def forgetful() -> Floats:
    """Right on all but 50 of the 160 rows that the base is right on, so better than the champion."""
    return (np.arange(ROWS) >= 50).astype(np.float64)


def nan() -> Floats:
    scores = BETTER.copy()
    scores[3] = math.nan
    return scores


def seen(rows: int) -> Seen:
    return Seen(frozenset(f"text {place}" for place in range(rows)), frozenset())


PLANTED: dict[str, tuple[Callable[[], Contest], str | None]] = {
    "better": (lambda: contest(BETTER, CHAMPION, BASE), None),
    "within noise": (lambda: contest(right(0.71), CHAMPION, BASE), "must be more than chance: p below"),
    "too little gain": (lambda: contest(right(0.7025), CHAMPION, BASE), "must lead the champion by 0.5 points or more"),
    "level": (lambda: contest(CHAMPION, CHAMPION, BASE), "must lead the champion"),
    "worse": (lambda: contest(right(0.6), CHAMPION, BASE), "it leads by -10.0 points"),
    "no better than the base": (lambda: contest(BETTER, CHAMPION, BETTER), "better than the frozen base"),
    "one slice broken": (lambda: contest(broken_slice(), CHAMPION, BASE), "negative loses 12.0 points on 200 rows"),
    "forgetting": (lambda: contest(forgetful(), CHAMPION, BASE), "the share that it loses must be at most 0.25"),
    "NaN of the challenger": (lambda: contest(nan(), CHAMPION, BASE), "scores of the challenger must be numbers; 1 of"),
    "NaN of the champion": (lambda: contest(BETTER, nan(), BASE), "scores of the champion must be numbers"),
    "NaN of the base": (lambda: contest(BETTER, CHAMPION, nan()), "scores of the base must be numbers"),
    "other rows": (
        lambda: among("champion", ids=("b:1", *side(CHAMPION).ids[1:])),
        "the champion must be asked today's test rows",
    ),
    "fewer rows": (
        lambda: among("champion", ids=side(CHAMPION[1:]).ids, scores=CHAMPION[1:]),
        "the champion must be asked today's test rows",
    ),
    "a champion that does not load": (
        lambda: among("champion", problem="it does not load"),
        "the champion must answer the test rows; it does not load",
    ),
    "unreadable answers": (
        lambda: among("challenger", unreadable=0.06),
        "answers that cannot be read must be at most 0.05; it is 0.06",
    ),
    "a figure that is missing": (
        lambda: among("challenger", unreadable=None),
        "answers that cannot be read must be known",
    ),
    "a challenger that keeps no hashes": (
        lambda: among("challenger", seen=None),
        "must keep the hashes of the rows",
    ),
    "a champion that keeps none": (lambda: among("champion", seen=None), None),
    "a champion that trained on all of today's rows": (
        lambda: among("champion", seen=seen(ROWS)),
        "must be left that neither was made with; 0 are, and 400 rows were left out",
    ),
    "no champion": (lambda: contest(BETTER, None, BASE), None),
    "no champion, no better than the base": (lambda: contest(right(0.41), None, BASE), "better than the frozen base"),
    "no champion, no better than the commonest answer": (
        lambda: contest(BETTER, None, BASE, majority=BETTER),
        "better than always giving the commonest answer",
    ),
}


@pytest.mark.parametrize("case", PLANTED)
def test_a_planted_case_is_decided_as_it_should_be(case: str) -> None:
    made, said = PLANTED[case]
    found = verdict(made())
    assert found.promote == (said is None), found.reasons
    if said is not None:
        assert said in "; ".join(found.reasons)
        assert len(found.reasons) == 1 or case in ("worse", "level"), found.reasons  # only what was planted


def test_rows_that_a_champion_was_trained_on_count_neither_for_it_nor_against_it() -> None:
    """It has learned 300 of 400 rows by heart, and is much worse on the others."""
    champion = np.concatenate([np.ones(300), right(0.4, 100)])
    challenger = np.concatenate([right(0.8, 300), right(0.8, 100)])
    base = np.concatenate([right(0.3, 300), right(0.3, 100)])
    made = contest(challenger, champion, base)
    assert not verdict(made).promote
    found = verdict(replace(made, champion=side(champion, seen=seen(300))))
    assert (found.promote, found.rows, found.left_out) == (True, 100, 300)
    assert found.values == {"challenger": 0.8, "champion": 0.4, "base": 0.3}


def test_a_group_that_a_version_was_made_with_is_left_out_with_all_its_rows() -> None:
    made = contest(BETTER, CHAMPION, BASE)
    rows = [replace(row, group=f"passage {place // 4}") for place, row in enumerate(made.rows)]
    own = Seen(frozenset(), frozenset({"passage 0", "passage 7"}))
    found = verdict(replace(made, rows=rows, challenger=side(BETTER, seen=own)))
    assert (found.rows, found.units, found.left_out) == (392, 98, 8)


def test_rows_of_few_groups_show_less_than_as_many_rows_of_their_own() -> None:
    made = contest(right(0.76), CHAMPION, BASE)
    grouped = [replace(row, group=f"passage {place // 24}") for place, row in enumerate(made.rows)]
    assert verdict(made).promote
    assert not verdict(replace(made, rows=grouped), least_rows=15).promote


def test_a_later_look_needs_more() -> None:
    """A lead of 10 rows with none lost has p = 2 ^ -10, between the levels of the first look and of the hundredth."""
    made = contest(right(0.725), CHAMPION, BASE)
    assert verdict(made, look=1).over_champion == verdict(made, look=100).over_champion
    assert verdict(made, look=1, looks=10).promote
    assert not verdict(made, look=100, looks=10).promote


def test_a_measure_that_is_no_mean_is_compared_as_it_adds_up() -> None:
    generator = np.random.default_rng(0)
    answer = generator.normal(size=150)
    said = {noise: answer + noise * generator.normal(size=150) for noise in (0.3, 1.0, 3.0)}
    challenger, champion, base = (np.stack([said[noise], answer], axis=1) for noise in (0.3, 1.0, 3.0))
    made = contest(challenger, champion, base, measure=Correlation("pearson"), labels=[""] * 150)
    # The fewest resamples that there may be, of which no p-value is below 1 / 101; this look asks for one below 0.0076.
    drawing, given = replace(DRAWING, resamples=100), settings(false_promotions=0.4)
    found = decide(made, given, drawing, look=1)
    assert found.promote, found.reasons
    assert found.values["champion"] == pytest.approx(float(np.corrcoef(said[1.0], answer)[0, 1]))
    turned = replace(made, challenger=made.champion, champion=made.challenger)
    assert not decide(turned, given, drawing, look=1).promote


@pytest.mark.parametrize(
    ("rise", "limit", "said"),
    [
        (0.6, 0.5, "perplexity of neutral text, as a share of the base's, must be at most 0.5; it is 0.6"),
        (None, 0.5, "must be known, since gate.limits.perplexity is 0.5"),
        (0.4, 0.5, None),
        (0.6, None, None),
    ],
)
def test_a_challenger_that_breaks_neutral_text_is_kept_out_by_a_limit(
    rise: float | None, limit: float | None, said: str | None
) -> None:
    limits = SETTINGS.limits.model_copy(update={"perplexity": limit})
    found = decide(
        among("challenger", perplexity=rise), SETTINGS.model_copy(update={"limits": limits}), DRAWING, look=1
    )
    assert found.promote == (said is None)
    assert said is None or any(said in reason for reason in found.reasons)


# --- the numbers under it --------------------------------------------------------------------------------------------


def test_the_chance_of_units_of_one_row_is_that_of_mcnemar() -> None:
    """11 rows won and 3 lost: a binomial test of 14, one side."""
    one, other = np.zeros(60), np.zeros(60)
    one[:11], other[11:14] = 1, 1
    pair = Pair(Proportion("accuracy"), one, other, np.arange(60))
    expected = stats.binomtest(11, 14, alternative="greater").pvalue
    assert chance(pair, DRAWING, level=0.05) == pytest.approx(expected)


def test_the_chance_of_groups_is_the_share_of_all_ways_to_exchange_them() -> None:
    """Six groups that differ by 3, 2, 2, 1, -1 and -2 rows: all 64 ways are counted."""
    differences = [3, 2, 2, 1, -1, -2]
    ways = [sum(a * b for a, b in zip(signs, differences, strict=True)) for signs in product((1, -1), repeat=6)]
    one, other, units = [], [], []
    for unit, difference in enumerate(differences):
        for row in range(4):
            one.append(float(row < difference))
            other.append(float(row < -difference))
            units.append(f"group {unit}")
    pair = Pair(Proportion("accuracy"), np.array(one), np.array(other), numbered(units))
    assert chance(pair, DRAWING, level=0.05) == pytest.approx(sum(way >= 5 for way in ways) / 64)


def test_the_chance_of_scores_between_0_and_1_comes_near_the_exact_one() -> None:
    """Scores of 0 and 0.5 have the same ways as those of 0 and 1, and are drawn."""
    one, other = np.zeros(40), np.zeros(40)
    one[:9], other[9:12] = 1, 1
    pair = Pair(Proportion("accuracy"), one, other, np.arange(40))
    half = Pair(Mean("rouge1"), one / 2, other / 2, np.arange(40))
    drawn = chance(half, replace(DRAWING, resamples=20_000), level=0.05)
    assert drawn == pytest.approx(chance(pair, DRAWING, level=0.05), abs=0.005)


def test_the_interval_of_groups_is_wider_than_that_of_their_rows() -> None:
    generator = np.random.default_rng(1)
    one, other = (np.repeat(generator.random(50) < share, 8).astype(np.float64) for share in (0.8, 0.6))
    rows = lead(Pair(Proportion("accuracy"), one, other, np.arange(400)), replace(DRAWING, resamples=2000), level=0.05)
    groups = lead(
        Pair(Proportion("accuracy"), one, other, np.arange(400) // 8), replace(DRAWING, resamples=2000), level=0.05
    )
    assert rows.value == groups.value
    assert (groups.high - groups.low) / (rows.high - rows.low) == pytest.approx(math.sqrt(8), rel=0.15)


def test_what_rows_can_show_is_found_in_four_of_five_years() -> None:
    """Challengers whose true lead is what 300 rows show at this level, of rows of which 25 % differ."""
    generator, level = np.random.default_rng(2), 0.01
    units, found = np.arange(300), 0
    drawn = generator.random((500, 300))

    def pair(lead: float, draws: Floats) -> Pair:
        won = draws < 0.125 + lead / 2
        lost = (draws >= 0.125 + lead / 2) & (draws < 0.25)
        return Pair(Proportion("accuracy"), won.astype(np.float64), lost.astype(np.float64), units)

    least = shown(pair(0.0, (units + 0.5) / 300), level)
    assert least is not None
    found = sum(chance(pair(least, draws), DRAWING, level=level) < level for draws in drawn)
    assert 0.72 < found / 500 < 0.9
