"""Rollback: one champion back, the version that goes out of use marked, and what a killed one leaves."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pipelines.errors import PipelineError
from pipelines.params.whole import Params
from pipelines.registry import rollback as rolling
from pipelines.registry.aliases import CHALLENGER, CHAMPION, MOVE, PREVIOUS, WITHDRAWN
from pipelines.registry.gate import Contest
from pipelines.registry.listing import lineage_of, versions_of
from pipelines.registry.promote import Request, Rules, broken_champion, end_moves, is_due, promote
from pipelines.registry.rollback import RolledBack, roll_back, withhold
from pipelines.tracking.runs import Store
from tests.promoting import MODEL, Killed, aliases, by_numbers, die_at, promoted, tags

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion


def loads(_version: object) -> None:
    """It does."""


@pytest.fixture
def twice(lives: Store, lives_params: Params) -> Store:
    """Version 2 replaced version 1, and version 3 that."""
    promoted(lives, lives_params, Request(2))
    promoted(lives, lives_params, Request(3))
    assert aliases(lives) == {CHAMPION: "3", PREVIOUS: "2"}
    return lives


def test_a_rollback_goes_one_champion_back_each_time(twice: Store) -> None:
    done = roll_back(twice, MODEL, reason="too slow", check=loads)
    assert (done, aliases(twice)) == (RolledBack(MODEL, 2, 3), {CHAMPION: "2", PREVIOUS: "1"})
    assert tags(twice, 3)[WITHDRAWN].endswith(": too slow")
    assert roll_back(twice, MODEL, reason="worse", check=loads) == RolledBack(MODEL, 1, 2)
    assert aliases(twice) == {CHAMPION: "1"}
    with pytest.raises(PipelineError, match=r"no version has the alias previous.*reft promote NUMBER --reason"):
        roll_back(twice, MODEL, reason="", check=loads)


def test_a_version_that_was_rolled_back_comes_again_for_a_reason_alone(twice: Store, lives_params: Params) -> None:
    roll_back(twice, MODEL, reason="too slow", check=loads)
    twice.client.set_registered_model_alias(MODEL, CHALLENGER, "3")  # as a registration of the same adapter does
    decision = promoted(twice, lives_params, Request())
    assert (decision.promoted, decision.verdict.promote) == (False, False)
    assert "a person took it out of use" in decision.verdict.reasons[0]
    assert aliases(twice)[CHAMPION] == "2"
    assert promoted(twice, lives_params, Request(reason="it is fast now")).promoted
    assert aliases(twice) == {CHAMPION: "3", PREVIOUS: "2"}
    assert WITHDRAWN not in tags(twice, 3)


def test_a_previous_champion_that_does_not_load_is_no_way_back(twice: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def does_not(_version: object) -> None:
        raise PipelineError("a version must load before it goes live", got="it does not")

    with pytest.raises(PipelineError, match="must load before it goes live"):
        roll_back(twice, MODEL, reason="", check=does_not)
    monkeypatch.setattr(rolling, "has_files", lambda *_: False)
    with pytest.raises(PipelineError, match="must have the files that were registered"):
        roll_back(twice, MODEL, reason="", check=loads)
    assert aliases(twice) == {CHAMPION: "3", PREVIOUS: "2"}


def test_a_champion_whose_version_was_deleted_is_rolled_back_from(lives: Store) -> None:
    lives.client.delete_registered_model_alias(MODEL, CHAMPION)
    assert broken_champion(lives, MODEL) is None  # as before the first promotion
    lives.client.set_registered_model_alias(MODEL, PREVIOUS, "2")
    assert "lives has no champion, and had one before" in str(broken_champion(lives, MODEL))
    assert roll_back(lives, MODEL, reason="", check=loads) == RolledBack(MODEL, 2, None)
    assert aliases(lives) == {CHAMPION: "2"}
    assert broken_champion(lives, MODEL) is None


def test_no_run_promotes_what_stood_by_when_a_person_went_back(lives: Store, lives_params: Params) -> None:
    promoted(lives, lives_params, Request(2))
    assert aliases(lives) == {CHAMPION: "2", PREVIOUS: "1", CHALLENGER: "3"}
    roll_back(lives, MODEL, reason="users complained", check=loads)
    assert aliases(lives) == {CHAMPION: "1"}
    assert not is_due(lives, Rules(lives_params, "data"), 3, None, automatic=True)
    assert promoted(lives, lives_params, Request(3)).promoted  # as a person says who names it


def test_a_rollback_while_the_rows_are_asked_is_the_last_word(lives: Store, lives_params: Params) -> None:
    promoted(lives, lives_params, Request(2))

    def ask(challenger: ModelVersion, champion: ModelVersion | None) -> Contest:
        if aliases(lives)[CHAMPION] == "2":
            roll_back(lives, MODEL, reason="users complained", check=loads)
        return by_numbers()(challenger, champion)

    with pytest.raises(PipelineError, match="users complained"):
        promote(lives, Rules(lives_params, "data"), Request(3), ask=ask, record=lambda _: None)
    assert aliases(lives) == {CHAMPION: "1"}


def test_a_version_that_is_champion_again_is_in_use(lives: Store, lives_params: Params) -> None:
    promoted(lives, lives_params, Request(2))
    promoted(lives, lives_params, Request(1, reason="as before"))
    roll_back(lives, MODEL, reason="no", check=loads)
    assert WITHDRAWN in tags(lives, 1)
    assert roll_back(lives, MODEL, reason="yes", check=loads) == RolledBack(MODEL, 1, 2)  # who was it before that
    assert WITHDRAWN not in tags(lives, 1)


@pytest.mark.parametrize("reason", ["x" * 501, "caf\udce9"])
def test_a_reason_that_cannot_be_kept_is_refused_before_anything_moves(
    twice: Store, lives_params: Params, reason: str
) -> None:
    before = (aliases(twice), tags(twice, 3))
    with pytest.raises(PipelineError, match="a reason is text of at most 500 characters"):
        roll_back(twice, MODEL, reason=reason, check=loads)
    with pytest.raises(PipelineError, match="a reason is text of at most 500 characters"):
        promoted(twice, lives_params, Request(1, reason=reason))
    assert (aliases(twice), tags(twice, 3)) == before


def test_a_refusal_of_any_length_is_kept(twice: Store) -> None:
    withhold(twice, MODEL, 2, reason="x" * 200_000 + "\udce9")
    assert "refused: xxx" in tags(twice, 2)[WITHDRAWN]


@pytest.mark.long
def test_wherever_a_rollback_is_killed_the_next_command_ends_it(lives: Store, lives_params: Params) -> None:
    promoted(lives, lives_params, Request(2))
    promoted(lives, lives_params, Request(3))
    for write in range(1, 100):
        with pytest.MonkeyPatch.context() as patch:
            writes = die_at(patch, write)
            try:
                roll_back(lives, MODEL, reason="too slow", check=loads)
                died = False
            except Killed:
                died = True
        assert aliases(lives)[CHAMPION] in ("2", "3")
        announced = MOVE in lives.client.get_registered_model(MODEL).tags
        end_moves(lives, MODEL)
        expected = {CHAMPION: "2", PREVIOUS: "1"} if announced or aliases(lives)[CHAMPION] == "2" else {
            CHAMPION: "3", PREVIOUS: "2"
        }  # fmt: skip
        assert aliases(lives) == expected, write
        assert MOVE not in lives.client.get_registered_model(MODEL).tags
        if aliases(lives)[CHAMPION] == "2":  # go on from the same place
            promoted(lives, lives_params, Request(3, reason="again"))
        if not died:
            break
    assert writes() == write - 1 == 7  # the claim and the move, each set and deleted; the mark; two aliases


def test_a_rollback_that_was_killed_and_is_given_again_goes_back_once(twice: Store) -> None:
    from mlflow import MlflowClient

    with pytest.MonkeyPatch.context() as patch:

        def dead(*_: object) -> None:
            raise Killed

        patch.setattr(MlflowClient, "set_registered_model_alias", dead)
        with pytest.raises(Killed):
            roll_back(twice, MODEL, reason="too slow", check=loads)
    assert roll_back(twice, MODEL, reason="too slow", check=loads) == RolledBack(MODEL, 2, 3)
    assert aliases(twice) == {CHAMPION: "2", PREVIOUS: "1"}


def test_the_list_has_what_people_look_for(twice: Store) -> None:
    roll_back(twice, MODEL, reason="too slow", check=loads)
    newest, second, first = versions_of(twice, MODEL, "accuracy")
    assert [one.version for one in (newest, second, first)] == [3, 2, 1]
    assert (newest.aliases, second.aliases, first.aliases) == ((), (CHAMPION,), (PREVIOUS,))
    assert (newest.value, newest.lead, newest.gate) == (0.8, 0.3, "passed")  # of tests/pipelines/finished.py
    assert newest.withdrawn.endswith(": too slow")
    assert (first.gate, first.withdrawn) == ("", "")
    assert versions_of(twice, "nobody", "accuracy") == []


def test_lineage_names_adapter_trial_study_rows_base_and_commit(lives: Store) -> None:
    found, own = lineage_of(lives, MODEL, 2), tags(lives, 2)
    assert found["adapter"] == own["reft.adapter_sha256"]
    assert (found["trial"], found["rows"], found["base"]) == ("0", own["data.sha256"], own["base.sha256"])
    assert {"study", "commit", "dvc.lock", "torch", "run in MLflow"} <= set(found)
    with pytest.raises(PipelineError, match=r"must have the version\. Got: 9"):
        lineage_of(lives, MODEL, 9)


def test_a_champion_that_lost_its_files_is_said_with_the_way_back(
    lives: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pipelines.registry import promote

    assert broken_champion(lives, MODEL) is None
    monkeypatch.setattr(promote, "holds", lambda *_: False)
    assert "version 1 of lives, has not the files" in str(broken_champion(lives, MODEL))
    assert "`reft rollback`" in str(broken_champion(lives, MODEL))
