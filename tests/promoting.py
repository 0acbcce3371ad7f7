"""Versions of a registry that are promoted by numbers, without a model: at the same moment, or by one who is killed."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, fields
from pathlib import Path
from threading import Barrier
from typing import Any

import numpy as np
import pytest
from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion

from pipelines.contracts.facts import StageFiles
from pipelines.contracts.identities import Identity, Seen
from pipelines.contracts.verdict import Decision
from pipelines.errors import PipelineError
from pipelines.params.whole import Params
from pipelines.registry.aliases import CHALLENGER, CHAMPION, PREVIOUS, REPLACED, WITHDRAWN, unfinished
from pipelines.registry.gate import Contest, Side
from pipelines.registry.promote import Request, Rules, promote
from pipelines.stages import register
from pipelines.tasks.measures import Proportion
from pipelines.tracking.runs import Store, open_store
from tests.pipelines.finished import finish_stages, make_params

MODEL = "lives"
ROWS = 400
SHARES = {"1": 0.6, "2": 0.75, "3": 0.9}  # of the rows that a version is right on, by its number
RACERS = 4
SECONDS = 120.0  # that one waits for the others to be ready
WRITES = tuple(
    f"{verb}_{what}"
    for what in ("registered_model_tag", "registered_model_alias", "model_version_tag")
    for verb in ("set", "delete")
)


def by_numbers(shares: Mapping[str, float] = SHARES) -> Callable[[ModelVersion, ModelVersion | None], Contest]:
    """Asks nobody: versions are right on the first rows, as many as their share says."""
    ids = tuple(f"a:{row + 1}" for row in range(ROWS))

    def side(share: float) -> Side:
        scores = (np.arange(ROWS) < round(share * ROWS)).astype(np.float64)
        return Side(ids, scores, seen=Seen(frozenset(), frozenset()), unreadable=0.0)

    def ask(challenger: ModelVersion, champion: ModelVersion | None) -> Contest:
        rows = [Identity(name, "test", name, None) for name in ids]
        other = None if champion is None else side(shares[str(champion.version)])
        own, base = side(shares[str(challenger.version)]), side(0.3)
        return Contest(Proportion("accuracy"), rows, [""] * ROWS, own, other, base, None)

    return ask


def three_versions(root: Path, model: str, uri: str) -> Store:
    """A model with three versions, each of an adapter of its own; version 3 challenges."""
    params = make_params(model, uri)
    for seed in range(3):
        files = StageFiles(**finish_stages(root, seed=seed))
        register.run(params, root=root, files=files, out=root / "registration.json")
    return open_store(params.tracking, root)


def promoted(
    store: Store,
    params: Params,
    request: Request,
    *,
    shares: Mapping[str, float] = SHARES,
    record: Callable[[Decision], None] = lambda _: None,
) -> Decision:
    """Promote by numbers."""
    return promote(store, Rules(params, "data"), request, ask=by_numbers(shares), record=record)


def begin(store: Store) -> None:
    """Version 1 is champion, version 3 challenges, and nothing was decided yet."""
    found = store.client.get_registered_model(MODEL)
    for alias in found.aliases:
        store.client.delete_registered_model_alias(MODEL, alias)
    for key in found.tags:
        store.client.delete_registered_model_tag(MODEL, key)
    for number in ("1", "2", "3"):
        for key in store.client.get_model_version(MODEL, number).tags:
            if key.startswith(("gate.", REPLACED, WITHDRAWN)):
                store.client.delete_model_version_tag(MODEL, number, key)
    store.client.set_registered_model_alias(MODEL, CHAMPION, "1")
    store.client.set_registered_model_alias(MODEL, CHALLENGER, "3")


def aliases(store: Store) -> dict[str, str]:
    """The aliases of the model, each with the number of its version."""
    return {alias: str(number) for alias, number in store.client.get_registered_model(MODEL).aliases.items()}


def tags(store: Store, version: int) -> dict[str, str]:
    """The tags of a version."""
    return dict(store.client.get_model_version(MODEL, str(version)).tags)


# --- kills -----------------------------------------------------------------------------------------------------------


class Killed(BaseException):
    """Stands for a kill where the process goes on to look what it left."""


def _raise() -> None:
    raise Killed


def kill_this_process() -> None:
    """As kill -9 does."""
    os.kill(os.getpid(), signal.SIGKILL)


def die_at(patch: pytest.MonkeyPatch, write: int, how: Callable[[], None] = _raise) -> Callable[[], int]:
    """Die in the place of a write to the registry, counted from 1; returns what says how many there were."""
    count = 0

    def dying(name: str) -> Callable[..., Any]:
        real = getattr(MlflowClient, name)

        def call(*arguments: Any, **named: Any) -> Any:
            nonlocal count
            if any(str(argument).startswith("gate.") for argument in arguments):
                return real(
                    *arguments, **named
                )  # one of many tags of the decision, of which none changes another write
            count += 1
            if count >= write:  # nothing after it is written either, as by what a killed process would still do
                how()
            return real(*arguments, **named)

        return call

    for name in WRITES:
        patch.setattr(MlflowClient, name, dying(name))
    return lambda: count


# --- races -----------------------------------------------------------------------------------------------------------


@dataclass
class Figures:
    """What came of the races; all but the first two are faults."""

    races: int = 0
    right: int = 0  # the best is champion, and what it replaced is previous
    wrong_previous: int = 0
    lost_alias: int = 0  # champion or previous is missing
    unfinished: int = 0  # a move is announced, or a claim stands
    errors: int = 0

    def __str__(self) -> str:
        return ", ".join(f"{field.name.replace('_', ' ')} {getattr(self, field.name)}" for field in fields(self))


def race_promotions(folder: Path, uri: str, rounds: int) -> tuple[Figures, list[str]]:
    """Promote two challengers at once in so many rounds, each by two processes; returns the errors' words too."""
    root = folder / "project"
    root.mkdir(parents=True)
    store = three_versions(root, "first", uri)
    for number in range(rounds):
        _copy(store, "first", _model(number))
    context = multiprocessing.get_context("spawn")  # a fork would share the parent's connections
    with context.Manager() as manager, ProcessPoolExecutor(RACERS, mp_context=context) as pool:
        ready = manager.Barrier(RACERS)
        racers = [pool.submit(_race, str(2 + place % 2), root, uri, rounds, ready) for place in range(RACERS)]
        told = [racer.result() for racer in racers]
    figures = Figures()
    for number, one_race in enumerate(zip(*told, strict=True)):
        _count(figures, store, _model(number), one_race)
    return figures, [words for each in told for words in each if isinstance(words, str)]


def _model(number: int) -> str:
    return f"promotions-{number}"


def _copy(store: Store, model: str, name: str) -> None:
    """A model with the same three versions, of which the first is champion and the last challenges."""
    store.client.create_registered_model(name)
    for number in ("1", "2", "3"):
        version = store.client.get_model_version(model, number)
        logged = str(version.source).removeprefix("models:/")
        store.client.create_model_version(name, version.source, version.run_id, tags=version.tags, model_id=logged)
    store.client.set_registered_model_alias(name, CHAMPION, "1")
    store.client.set_registered_model_alias(name, CHALLENGER, "3")


def _race(version: str, root: Path, uri: str, rounds: int, ready: Barrier) -> list[Decision | str | None]:
    store = open_store(make_params("first", uri).tracking, root)
    return [_one(version, store, make_params(_model(number), uri), ready) for number in range(rounds)]


def _one(version: str, store: Store, params: Params, ready: Barrier) -> Decision | str | None:
    ready.wait(SECONDS)
    try:
        return promoted(store, params, Request(int(version)))
    except PipelineError as error:  # the other process of this challenger was quicker
        return None if "must not be the champion" in str(error) else str(error)
    except Exception as error:  # noqa: BLE001  (any is a fault, and is counted)
        return f"{type(error).__name__}: {error}"


def _count(figures: Figures, store: Store, model: str, told: tuple[Decision | str | None, ...]) -> None:
    figures.races += 1
    figures.errors += sum(isinstance(one, str) for one in told)
    moved = {one.version for one in told if isinstance(one, Decision) and one.promoted}
    found = store.client.get_registered_model(model)
    has = {alias: int(number) for alias, number in found.aliases.items()}
    figures.lost_alias += len({CHAMPION, PREVIOUS} - set(has))
    right_previous = has.get(PREVIOUS) == (2 if 2 in moved else 1)
    figures.wrong_previous += not right_previous
    figures.unfinished += unfinished(found.tags) is not None or any(key.startswith("reft.claim.") for key in found.tags)
    figures.right += has.get(CHAMPION) == 3 and right_previous and CHALLENGER not in has
