"""What the random kills must know of a search: when one more would end a recipe, and with it be another outcome."""

from __future__ import annotations

from pathlib import Path

import optuna
from optuna.trial import TrialState

from pipelines.search.study import ERROR, INTERRUPTED, MAX_KILLS, RETRY_OF
from tests.random_kills import fails_a_recipe


def test_a_kill_that_would_be_the_last_of_a_recipe_is_known(tmp_path: Path) -> None:
    database = tmp_path / ".reft" / "optuna.db"
    assert not fails_a_recipe(tmp_path)  # there is no study yet
    database.parent.mkdir()
    database.touch()
    assert not fails_a_recipe(tmp_path)  # nor tables
    study = optuna.create_study(storage=f"sqlite:///{database}")

    def killed(former: int | None) -> int:
        trial = study.ask()
        if former is not None:
            trial.set_user_attr(RETRY_OF, former)
        study.tell(trial, state=TrialState.FAIL)
        return trial.number

    for attribute in (ERROR, INTERRUPTED):  # neither of which is a kill
        trial = study.ask()
        trial.set_user_attr(attribute, True)
        study.tell(trial, state=TrialState.FAIL)
    number: int | None = None
    for _ in range(MAX_KILLS - 1):
        assert not fails_a_recipe(tmp_path)
        number = killed(number)
    assert fails_a_recipe(tmp_path)  # it may be repeated at any moment
    last = study.ask()
    last.set_user_attr(RETRY_OF, number)
    assert fails_a_recipe(tmp_path)
    study.tell(last, 0.5)
    assert not fails_a_recipe(tmp_path)
