"""Where the winner came from is said, and not that a search found what a person wrote."""

from __future__ import annotations

import pytest

from pipelines.params.whole import check_params
from pipelines.search.origin import origin
from tests.pipelines.ended import end, record, settings
from tests.searching import RAW

NAMED = 2
BY_HAND = "written by hand: number 2 of the 2 recipes in search.enqueue; no sampler proposed it"


@pytest.mark.parametrize(
    ("number", "enqueued", "sampler", "source", "words"),
    [
        (1, 1, "tpe", "enqueue", BY_HAND),
        (2, 2, "tpe", "earlier", "the best of an earlier study, tried again (search.earlier)"),
        (4, None, "tpe", "chance", "taken from search.space by chance, as tpe does for the first 5 trials"),
        (5, None, "tpe", "sampler", "proposed by the sampler tpe from the trials before it"),
        (5, None, "gp", "sampler", "proposed by the sampler gp from the trials before it"),
        (9, None, "random", "chance", "taken from search.space by chance"),
        (9, None, "qmc", "chance", "taken from search.space by qmc"),
    ],
)
def test_every_source_has_its_words(number: int, enqueued: int | None, sampler: str, source: str, words: str) -> None:
    section = settings(sampler=sampler).search
    found = origin(record(number, {}, enqueued=enqueued), section, named=NAMED)
    assert (found.source, found.words) == (source, words)


def test_the_report_says_it_after_the_rule() -> None:
    params = settings()
    first, second = ({str(part): value for part, value in point.items()} for point in params.recipe_space().first)
    verdict = end(params, [record(0, first, enqueued=0, value=0.7), record(1, second, enqueued=1, value=0.9)])
    assert verdict.reasons()[1] == f"Its recipe was {BY_HAND}."


def test_what_the_project_ships_follows_the_advice_of_its_page() -> None:
    """docs/search.md: a pruner is for long trials; these have a dozen steps."""
    params = check_params(RAW, "params.yaml")
    steps = params.search.train_rows * (params.search.epochs or 1) // params.train.batch_size
    assert steps < 36
    assert params.search.pruner.name == "none"
    assert params.search.trials > max(len(params.search.enqueue) + 2, 5), "the sampler has trials to learn from"
