"""The report of a search says who won, why and at what cost, whatever the study holds; nothing in it can act."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pipelines.contracts.trials import KILLED
from pipelines.reports.search.importance import LEAST, importances
from pipelines.reports.search.page import write_report
from pipelines.reports.search.verdict import Verdict
from pipelines.search.choice import confirmed
from pipelines.search.records import saved_seconds
from tests.browser import Tab
from tests.pipelines.ended import REPORTS, end, failed, pruned, record, settings, trials
from tests.pipelines.reports.pages import Page

CONFIRM = {"top": 3, "seeds": 2}
MEDIAN = {"name": "median", "startup_trials": 2, "warmup_reports": 0}
HOSTILE = "NonFiniteLossError: <script>alert('it ran')</script> & \"quoted\" \x00\x1b[31m\ud800"
PAPER = {"layers": "all", "positions": "l4", "rank": 8, "learning_rate": 0.0009}
OTHER = {"layers": "all", "positions": "l4", "rank": 1, "learning_rate": 0.004}


def report(path: Path, verdict: Verdict) -> Page:
    write_report(path / "report.html", verdict.found, verdict.choice)
    return Page((path / "report.html").read_text(encoding="utf-8"))


def usual(**search: Any) -> Verdict:
    """A study with complete, pruned and failed trials, whose best were run again."""
    params = settings(**{"confirm": CONFIRM, "pruner": MEDIAN, **search})
    found = trials(params, 14)
    return end(params, [*found, failed(14, found[3].params, HOSTILE)])


def test_it_says_who_won_against_what_and_at_what_cost(tmp_path: Path) -> None:
    verdict = usual()
    page, best = report(tmp_path, verdict), verdict.choice.record
    assert f"Trial {best.number} won: layers all, positions {best.params['positions']}" in page.words
    assert f"{100 * verdict.choice.value:.1f} %" in page.words
    assert f"± {100 * (verdict.choice.spread or 0):.1f} points" in page.words
    assert "points better" not in page.words  # what only test rows can say
    assert f"{100 * (verdict.choice.value - 0.71):+.1f} points" in page.words  # against the frozen base
    first = verdict.confirmed[0]  # which is run again beside the best three
    assert f"{100 * (verdict.choice.value - (first.mean or 0)):+.1f} points" in page.words
    states = [one.state for one in verdict.found.records]
    said = f"{states.count('complete')} complete, {states.count('pruned')} stopped early, 1 failed"
    assert f"15 trials: {said}; and 8 runs with other seeds" in page.words
    spent = sum(one.seconds or 0 for one in verdict.found.records) + sum(
        one.seconds for one in verdict.found.confirmations
    )
    assert f"{spent / 60:.1f} min of training and scoring" in page.words
    assert "test rows that no trial has seen" in " ".join(page.words.split())


def test_a_trial_that_was_killed_with_its_process_is_no_failed_one() -> None:
    params = settings()
    found = trials(params, 6)
    killed = failed(6, found[3].params, KILLED)
    verdict = end(params, [*found, killed, replace(found[3], number=7)])
    assert verdict.bill()[0].startswith("7 trials: 5 complete, 2 stopped early; 1 more ended with their process")


def test_a_trial_over_a_limit_spares_the_pruner_nothing() -> None:
    assert saved_seconds(pruned(0, PAPER), REPORTS) > 0
    assert saved_seconds(pruned(0, PAPER, over=("seconds",)), REPORTS) == 0


def test_every_trial_is_in_each_chart_and_in_the_table(tmp_path: Path) -> None:
    verdict = usual()
    page = report(tmp_path, verdict)
    for one in verdict.found.records:
        assert page.count("tr", data_row=str(one.number)) == 1
        kind = verdict.kind(one)
        # The history, a slice for each of four parts, the end of its curve; complete ones in the two trade-offs too.
        # History, curves and seeds are drawn twice, for wide windows and for narrow ones.
        marks = {"chosen": 10, "complete": 10, "pruned": 8, "fail": 2}[kind]
        seeds = 6 if one.number in verdict.confirmed else 0
        assert page.count("path", data_trial=str(one.number)) == marks + seeds, one
        lines = {"chosen": 3, "complete": 3, "pruned": 2, "fail": 0}[kind]  # its curve, and through all parts
        assert page.count("polyline", data_trial=str(one.number)) == lines


def test_no_text_of_a_trial_becomes_an_element(tmp_path: Path) -> None:
    page = report(tmp_path, usual())
    assert page.count("script") == 1
    assert "<script>alert('it ran')</script> & \"quoted\" \N{REPLACEMENT CHARACTER}" in page.words
    assert not any(name.startswith("on") for _, attrs in page.elements for name in attrs)
    assert not any({"src", "action", "style"} & set(attrs) for _, attrs in page.elements)
    assert [attrs["href"] for tag, attrs in page.elements if "href" in attrs] == ["data:,"]
    assert "http" not in page.source.replace('http-equiv="Content-Security-Policy"', "")


def test_the_same_study_is_the_same_page(tmp_path: Path) -> None:
    assert report(tmp_path, usual()).source == report(tmp_path, usual()).source


def test_a_first_recipe_that_was_stopped_is_compared_at_its_last_report(tmp_path: Path) -> None:
    params = settings(pruner=MEDIAN)
    found = [pruned(0, PAPER, report=1, enqueued=0), record(1, OTHER), record(2, OTHER | {"rank": 4})]
    verdict = end(params, found)
    best = verdict.choice.record
    said = (
        f"was stopped early: at report 1 of 4 it had {100 * found[0].intermediate[1]:.1f} %; "
        f"the winner had {100 * best.intermediate[1]:.1f} % there."
    )
    assert said in report(tmp_path, verdict).words
    assert verdict.costs().saved == pytest.approx(3 * (found[0].seconds or 0))


@pytest.mark.parametrize(("report", "saved"), [(1, 30.0), (2, 10.0), (4, 0.0)])
def test_what_pruning_saves_is_the_reports_to_come_at_the_pace_of_those_before(report: int, saved: float) -> None:
    one = replace(pruned(0, PAPER, report=report), seconds=10.0)
    assert saved_seconds(one, REPORTS) == saved
    assert saved_seconds(record(0, PAPER), REPORTS) == 0.0


@pytest.mark.parametrize(("steps", "said"), [((0.05, 0.06), "more than"), ((-0.02, 0.08), "not more than")])
def test_a_lead_is_weighed_by_its_spread_over_runs_on_the_same_rows(steps: tuple[float, float], said: str) -> None:
    """Rows that are harder for both spread the accuracies, and not the lead."""
    params = settings(confirm={"top": 1, "seeds": 2})
    verdict = end(params, [record(0, PAPER, enqueued=0), record(1, OTHER)])
    first = confirmed(0, {42: 0.8, 43: 0.7, 44: 0.9}, seconds=1.0)
    best = confirmed(1, {42: 0.9, 43: 0.7 + steps[0], 44: 0.9 + steps[1]}, seconds=1.0)
    found = replace(verdict.found, confirmations=[best, first])
    reasons = Verdict(found, replace(verdict.choice, value=best.mean or 0.0)).reasons()
    (sentence,) = [one for one in reasons if one.startswith("The recipe that was tried first")]
    assert f"ahead, {said} the spread of that over the runs" in sentence


def test_a_first_recipe_over_a_limit_is_told_on_the_rows_that_it_had(tmp_path: Path) -> None:
    params = settings(confirm={"top": 1, "seeds": 2})
    verdict = end(params, [record(0, PAPER, enqueued=0, over=("seconds",)), record(1, OTHER)])
    assert any("in one run each on validation rows." in one for one in verdict.reasons())
    assert "% on validation rows" in report(tmp_path, verdict).words


def test_without_confirmation_it_says_that_chance_is_not_known() -> None:
    verdict = end(settings(confirm=None), [record(0, PAPER, enqueued=0), record(1, OTHER)], base_value=None)
    assert "in one run each: how far chance decided is not known" in verdict.reasons()[0]
    assert [line.name for line in verdict.standings()] == ["chosen", "best of the others"]


def test_where_the_first_recipe_wins_the_search_found_none_better() -> None:
    verdict = end(settings(confirm=None), [record(0, OTHER, enqueued=0), record(1, PAPER)])
    assert any("is the one that won: the search found no better one" in one for one in verdict.reasons())


def test_several_objectives_have_a_front_and_a_panel_each(tmp_path: Path) -> None:
    objectives = ["accuracy", "parameters", "memory_mb"]
    params = settings(objectives=objectives, choose="smallest", confirm=None, pruner={"name": "none"})
    found = [
        replace(one, values=(one.value or 0.0, float(one.parameters or 0), one.memory_mb or 0.0))
        for one in (record(n, OTHER | {"rank": rank}) for n, rank in enumerate([1, 4, 8]))
    ]
    verdict = end(params, found)
    page = report(tmp_path, verdict)
    assert "on the Pareto front of accuracy, parameters and memory_mb" in page.words
    assert "it has the fewest parameters" in page.words
    assert "Accuracy against memory" in page.words
    assert page.count("polyline", **{"class": "front"}) == 3


def test_a_part_that_a_condition_left_out_is_no_obstacle(tmp_path: Path) -> None:
    condition = {"among": ["linear", "gelu"], "when": {"method": ["direft"]}, "otherwise": "linear"}
    space = {"method": ["loreft", "direft"], "activation": condition, "rank": {"low": 1, "high": 64, "log": True}}
    rest = {f"train.{part}": value for part, value in PAPER.items() if part != "rank"}
    fixed = {"train.method": "searched", "train.activation": "searched", **rest}
    params = settings(fixed, space=space, enqueue=[], confirm=None)
    direft = [{"method": "direft", "activation": form, "rank": 8} for form in ("gelu", "linear", "gelu")]
    points = [*direft, *({"method": "loreft", "rank": rank} for rank in (1, 8, 64))]
    found = [record(number, point) for number, point in enumerate(points)]
    page = report(tmp_path, end(params, found))
    assert "3 trials had no activation of their own" in page.words


@pytest.mark.parametrize(
    "found",
    [
        [record(0, PAPER, enqueued=0)],
        [replace(record(n, OTHER | {"learning_rate": 0.001 * (n + 1)}), value=0.5) for n in range(6)],
    ],
    ids=["one trial", "all alike"],
)
def test_a_study_that_tells_little_has_a_page_all_the_same(tmp_path: Path, found: list[Any]) -> None:
    page = report(tmp_path, end(settings(confirm=None), found))
    assert "What it cost" in page.words
    assert "Which part matters" not in page.words


def test_the_part_that_decides_is_found() -> None:
    params = settings()
    verdict = end(params, trials(params, 60))
    shares = verdict.importances
    assert next(iter(shares)) == "learning_rate"
    assert sum(shares.values()) == pytest.approx(1)
    assert not importances(verdict.complete[: LEAST - 1], params.recipe_space().space)


@pytest.mark.slow
@pytest.mark.parametrize(("width", "dark"), [(1280, False), (390, True)], ids=["desk, light", "phone, dark"])
def test_a_browser_shows_it_without_a_complaint_or_a_request(
    tmp_path: Path, tab: Tab, width: int, *, dark: bool
) -> None:
    verdict = usual()
    report(tmp_path, verdict)
    address = (tmp_path / "report.html").as_uri()
    tab.size(width, dark=dark)
    tab.open(address)
    assert tab.requests == [address]
    assert tab.run("document.documentElement.scrollWidth") <= width
    light = tab.run("getComputedStyle(document.body).backgroundColor.match(/[0-9]+/g).map(Number)[0] > 128")
    assert light is not dark
    # The nearest trial is marked in every chart, and told of.
    best = verdict.choice.record
    shown = "one => one.getClientRects().length"
    where = f"[...document.querySelectorAll('.mark.chosen[data-trial=\"{best.number}\"]')].find({shown})"
    tab.run(f"{where}.scrollIntoView({{block: 'center'}})")
    box = tab.run(f"(({{x, y, width, height}}) => [x + width / 2, y + height / 2])({where}.getBoundingClientRect())")
    tab.point(*box)
    assert tab.run("document.getElementById('tip').textContent").startswith(f"trial{best.number}statechosen")
    assert tab.run("document.querySelectorAll('.mark.picked').length") >= 8
    # The table is sorted by number, what has none comes last.
    tab.run("document.querySelectorAll('#trials button')[2].click()")
    order = "[...document.querySelectorAll('#trials tbody tr')].map(row => row.dataset.row)"
    accuracies = {
        str(one.number): one.value or max(one.intermediate.values(), default=9.0) for one in verdict.found.records
    }
    up = tab.run(order)
    assert [accuracies[number] for number in up] == sorted(accuracies.values())
    tab.run("document.querySelectorAll('#trials button')[2].click()")
    assert tab.run(order)[-1] == up[-1] == "14"
    assert tab.run(order)[0] == up[-2]
    assert tab.complaints == []


@pytest.mark.slow
@pytest.mark.parametrize("width", [390, 840, 1280])
def test_a_chart_shows_every_trial_and_its_words_can_be_read_in_any_window(
    tmp_path: Path, tab: Tab, width: int
) -> None:
    """But for the axes of all parts, which need their room: there the page says that there is more to the right."""
    report(tmp_path, usual())
    tab.size(width)
    tab.open((tmp_path / "report.html").as_uri())
    charts = "[...document.querySelectorAll('figure .frame > svg')].filter(one => one.getClientRects().length)"
    titles = f"{charts}.map(one => one.closest('figure').querySelector('h3').textContent)"
    assert len(tab.run(titles)) == len(set(tab.run(titles))) >= 10  # each chart once
    cut = f"{charts}.filter(one => one.parentNode.scrollWidth > one.parentNode.clientWidth)"
    assert tab.run(f"{cut}.map(one => one.closest('figure').querySelector('h3').textContent)") == (
        ["All parts together"] if width == 390 else []
    )
    aside = tab.run("getComputedStyle(document.querySelector('figcaption p.aside')).display")
    assert aside == ("block" if width == 390 else "none")
    words = f"{charts}.flatMap(one => [...one.querySelectorAll('text')]).filter(one => one.textContent)"
    size = "parseFloat(getComputedStyle(one).fontSize) * Math.hypot(one.getScreenCTM().a, one.getScreenCTM().b)"
    assert tab.run(f"Math.min(...{words}.map(one => {size}))") > 8  # pixels
