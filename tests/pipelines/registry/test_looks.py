"""How often a year a challenger was compared with a champion."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from pipelines.registry.looks import LOOK, look_number

START = datetime(2026, 1, 5, 6, tzinfo=UTC)


def tags(*days: int) -> dict[str, str]:
    return {f"{LOOK}{day}": (START + timedelta(days=day)).isoformat() for day in days}


def test_looks_are_counted_within_a_year_from_the_first() -> None:
    assert look_number({}, "new", START) == 1
    assert look_number(tags(0, 7, 14), "new", START + timedelta(days=21)) == 4
    assert look_number(tags(0, 7, 364), "new", START + timedelta(days=364, hours=1)) == 4
    assert look_number(tags(0, 7, 364), "new", START + timedelta(days=365)) == 1


def test_the_same_comparison_is_the_same_look_whenever_it_is_made() -> None:
    for day in (15, 200, 800):
        assert look_number(tags(0, 7, 14), "7", START + timedelta(days=day)) == 2


def test_a_clock_that_was_set_back_gives_no_earlier_look() -> None:
    assert look_number(tags(0, 7, 14), "new", START - timedelta(days=1)) == 4


def test_tags_that_are_no_looks_count_nothing() -> None:
    others = {"reft.claim.x": "{}", f"{LOOK}broken": "soon", f"{LOOK}naive": "2026-01-05T06:00:00"}
    assert look_number(others | tags(0), "new", START + timedelta(days=1)) == 2
