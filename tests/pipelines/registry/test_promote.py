"""Promotion by the gate's word: aliases, the decision that a version keeps, and what a killed one leaves."""

from __future__ import annotations

import multiprocessing
from dataclasses import replace
from multiprocessing.context import ForkServerContext
from pathlib import Path

import pytest

from pipelines.contracts.verdict import Decision, read_decision, write_decision
from pipelines.errors import PipelineError
from pipelines.params.whole import Params
from pipelines.registry import promote as promotion
from pipelines.registry.__main__ import _parser
from pipelines.registry.aliases import CHALLENGER, CHAMPION, MOVE, PREVIOUS
from pipelines.registry.gate import Contest
from pipelines.registry.lock import registry_lock
from pipelines.registry.page import decision_page, headline
from pipelines.registry.promote import Request, Rules, end_moves, has_files, is_due
from pipelines.runtime.process import BusyError
from pipelines.tracking.runs import Store, open_store
from tests.pipelines.finished import make_params
from tests.promoting import (
    MODEL,
    SHARES,
    Killed,
    aliases,
    begin,
    by_numbers,
    die_at,
    kill_this_process,
    promoted,
    tags,
)


def test_what_the_gate_says_is_done_and_kept(lives: Store, lives_params: Params, tmp_path: Path) -> None:
    kept: list[Decision] = []
    decision = promoted(lives, lives_params, Request(), record=kept.append)
    assert aliases(lives) == {CHAMPION: "3", PREVIOUS: "1"}
    assert kept == [decision]
    assert (decision.version, decision.champion, decision.promoted, decision.forced) == (3, 1, True, None)
    own = tags(lives, 3)
    assert (own["gate.promote"], own["gate.champion"], own["gate.look"], own["gate.lead_over_champion"]) == (
        "true", "1", "1", "0.3"
    )  # fmt: skip
    write_decision(tmp_path / "gate.json", decision)
    assert read_decision(tmp_path / "gate.json") == decision
    assert headline(decision) == "version 3 of lives is champion now; before it was version 1"
    page = decision_page(decision)
    assert "| champion | 60.0 | +30.0 points" in page
    assert "Look 1 of the year" in page


def test_a_challenger_that_is_no_better_stays_one_and_the_reason_is_kept(lives: Store, lives_params: Params) -> None:
    decision = promoted(lives, lives_params, Request(), shares=SHARES | {"3": 0.59})
    assert aliases(lives) == {CHAMPION: "1", CHALLENGER: "3"}
    assert not decision.promoted
    assert "must lead the champion by" in tags(lives, 3)["gate.reasons"]
    assert "stays champion" in headline(decision)


def test_the_first_version_is_champion_by_the_gate_alone(lives: Store, lives_params: Params) -> None:
    lives.client.delete_registered_model_alias(MODEL, CHAMPION)
    decision = promoted(lives, lives_params, Request())
    assert (decision.champion, decision.verdict.look) == (None, 0)
    assert aliases(lives) == {CHAMPION: "3"}


def test_a_dry_run_decides_and_writes_nothing(
    lives: Store, lives_params: Params, monkeypatch: pytest.MonkeyPatch
) -> None:
    die_at(monkeypatch, 1)  # at the first write
    decision = promoted(lives, lives_params, Request(dry=True))
    assert (decision.verdict.promote, decision.promoted, decision.dry) == (True, False, True)


def test_a_decision_that_a_person_is_to_carry_out_moves_no_alias(lives: Store, lives_params: Params) -> None:
    decision = promoted(lives, lives_params, Request(only_ask=True))
    assert (decision.verdict.promote, decision.promoted) == (True, False)
    assert aliases(lives) == {CHAMPION: "1", CHALLENGER: "3"}
    assert promoted(lives, lives_params, Request()).verdict.look == 1  # the same comparison is no second look


def test_a_forced_promotion_keeps_its_reason_and_what_the_gate_said(lives: Store, lives_params: Params) -> None:
    shares = SHARES | {"2": 0.59}
    decision = promoted(lives, lives_params, Request(2, reason="the law asks for it"), shares=shares)
    assert aliases(lives) == {CHAMPION: "2", PREVIOUS: "1", CHALLENGER: "3"}
    assert (decision.verdict.promote, tags(lives, 2)["gate.forced"]) == (False, "the law asks for it")
    assert "by a person: the law asks for it" in headline(decision)


def test_a_version_that_cannot_answer_is_not_promoted_for_any_reason(lives: Store, lives_params: Params) -> None:
    def ask(*versions: object) -> Contest:
        made = by_numbers()(*versions)  # type: ignore[arg-type]
        return replace(made, challenger=replace(made.challenger, problem="it does not load"))

    rules = Rules(lives_params, "data")
    assert not promotion.promote(lives, rules, Request(), ask=ask, record=lambda _: None).promoted
    with pytest.raises(PipelineError, match=r"only a version that answers.*it does not load"):
        promotion.promote(lives, rules, Request(reason="now"), ask=ask, record=lambda _: None)
    assert aliases(lives) == {CHAMPION: "1", CHALLENGER: "3"}


def test_a_version_that_has_lost_its_files_is_not_promoted(
    lives: Store, lives_params: Params, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(promotion, "holds", lambda *_: False)
    with pytest.raises(PipelineError, match="must have the files that were registered"):
        promoted(lives, lives_params, Request())
    assert aliases(lives) == {CHAMPION: "1", CHALLENGER: "3"}


def test_a_champion_that_comes_meanwhile_is_the_one_to_beat(lives: Store, lives_params: Params) -> None:
    asked: list[str | None] = []

    def ask(challenger: object, champion: object) -> Contest:
        asked.append(None if champion is None else str(champion.version))  # type: ignore[attr-defined]
        if len(asked) == 1:
            lives.client.set_registered_model_alias(MODEL, CHAMPION, "2")
        return by_numbers()(challenger, champion)  # type: ignore[arg-type]

    decision = promotion.promote(lives, Rules(lives_params, "data"), Request(), ask=ask, record=lambda _: None)
    assert (asked, decision.champion, aliases(lives)) == (["1", "2"], 2, {CHAMPION: "3", PREVIOUS: "2"})


def test_versions_that_cannot_be_promoted_are_refused(lives: Store, lives_params: Params) -> None:
    for request, said in (
        (Request(1), "a challenger must not be the champion"),
        (Request(9), "lives must have the version. Got: 9"),
    ):
        with pytest.raises(PipelineError, match=said):
            promoted(lives, lives_params, request)
    lives.client.delete_registered_model_alias(MODEL, CHALLENGER)
    with pytest.raises(PipelineError, match=r"lives must have a challenger.*reft promote 3"):
        promoted(lives, lives_params, Request())


def test_a_promotion_waits_for_who_writes_to_the_registry(
    lives: Store, lives_params: Params, lives_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(promotion, "WAIT_SECONDS", 0.0)
    other = open_store(lives_params.tracking, lives_root)
    with registry_lock(other, MODEL, wait_seconds=1), pytest.raises(BusyError, match="it is held by reft"):
        promoted(lives, lives_params, Request())
    assert aliases(lives) == {CHAMPION: "1", CHALLENGER: "3"}


def test_the_gate_is_asked_once_of_the_same_comparison(lives: Store, lives_params: Params) -> None:
    rules = Rules(lives_params, "data")
    assert not is_due(lives, rules, 2, None, automatic=True)  # it does not challenge
    assert is_due(lives, rules, 3, None, automatic=True)
    kept = promoted(lives, lives_params, Request(), shares=SHARES | {"3": 0.59})
    assert not is_due(lives, rules, 3, kept, automatic=True)
    assert is_due(lives, Rules(lives_params, "other rows"), 3, kept, automatic=True)
    assert is_due(lives, rules, 3, replace(kept, verdict=replace(kept.verdict, asked=False)), automatic=True)
    lives.client.set_registered_model_alias(MODEL, CHAMPION, "2")
    assert is_due(lives, rules, 3, kept, automatic=True)
    passing = replace(kept, key=rules.key(*(lives.client.get_model_version(MODEL, n) for n in ("3", "2"))))
    passing = replace(passing, verdict=replace(kept.verdict, promote=True))
    assert is_due(lives, rules, 3, passing, automatic=True)  # killed before the alias moved
    assert not is_due(lives, rules, 3, passing, automatic=False)  # it waits for a person


# --- kills -----------------------------------------------------------------------------------------------------------


def check_live(lives: Store) -> None:
    live = lives.client.get_model_version_by_alias(MODEL, CHAMPION)
    assert str(live.version) in ("1", "3")
    assert has_files(lives, live)


def finish(lives: Store, lives_params: Params) -> None:
    """What the next run does."""
    end_moves(lives, MODEL)
    if is_due(lives, Rules(lives_params, "data"), 3, None, automatic=True):
        promoted(lives, lives_params, Request(3))


def check_ended(lives: Store) -> None:
    assert aliases(lives) == {CHAMPION: "3", PREVIOUS: "1"}
    assert MOVE not in lives.client.get_registered_model(MODEL).tags


@pytest.mark.long
def test_wherever_a_promotion_is_killed_the_next_run_ends_it(lives: Store, lives_params: Params) -> None:
    for write in range(1, 100):
        begin(lives)
        lives.client.set_registered_model_alias(MODEL, PREVIOUS, "2")
        with pytest.MonkeyPatch.context() as patch:
            writes = die_at(patch, write)
            try:
                promoted(lives, lives_params, Request())
                died = False
            except Killed:
                died = True
        check_live(lives)
        if aliases(lives)[CHAMPION] == "1":
            end_moves(lives, MODEL)
            assert aliases(lives) == {CHAMPION: "1", CHALLENGER: "3", PREVIOUS: "2"}, write
        finish(lives, lives_params)
        check_ended(lives)
        if not died:
            break
    assert writes() == write - 1 > 8


def _die(root: Path, write: int) -> None:
    params = make_params(MODEL)
    die_at(pytest.MonkeyPatch(), write, kill_this_process)
    promoted(open_store(params.tracking, root), params, Request())


@pytest.mark.long
def test_wherever_kill_9_ends_a_promotion_the_next_run_ends_it(
    lives: Store, lives_params: Params, lives_root: Path
) -> None:
    # Each process is one that has imported all this, and has opened no database.
    context: ForkServerContext = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    for write in range(1, 100):
        begin(lives)
        process = context.Process(target=_die, args=(lives_root, write))
        process.start()
        process.join(120)
        assert process.exitcode in (0, -9)
        check_live(lives)
        finish(lives, lives_params)
        check_ended(lives)
        if process.exitcode == 0:
            break
    assert write > 8


def test_an_alias_that_a_person_moved_after_a_kill_stays_where_it_is(lives: Store, lives_params: Params) -> None:
    with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):
        _die_after_announcing(patch, lives, lives_params)
    lives.client.set_registered_model_alias(MODEL, CHAMPION, "2")
    end_moves(lives, MODEL)
    assert aliases(lives)[CHAMPION] == "2"
    assert MOVE not in lives.client.get_registered_model(MODEL).tags


def _die_after_announcing(patch: pytest.MonkeyPatch, lives: Store, lives_params: Params) -> None:
    from mlflow import MlflowClient

    def dead(*_: object) -> None:
        raise Killed

    patch.setattr(MlflowClient, "set_registered_model_alias", dead)
    promoted(lives, lives_params, Request())
    raise AssertionError("it was to die")


@pytest.mark.parametrize(
    "wanted", [Request(), Request(3, "- it is needed -", dry=True), Request(reason="a b"), Request(only_ask=True)]
)
def test_what_is_wanted_comes_through_the_command_line(wanted: Request) -> None:
    given = _parser().parse_args(["promote", "--base=b", "--prepared=p", "--out=o", *wanted.words()])
    assert Request(given.version, given.reason, dry=given.dry_run, only_ask=given.only_ask) == wanted
