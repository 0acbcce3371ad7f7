"""Projects that register, or promote, at the same moment, again and again, in processes that are started once."""

from __future__ import annotations

import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, fields
from pathlib import Path
from threading import Barrier

from pipelines.contracts.facts import StageFiles
from pipelines.contracts.registration import Registration, read_registration
from pipelines.registry.aliases import CHALLENGER
from pipelines.registry.versions import ADAPTER
from pipelines.stages import register
from pipelines.tracking.runs import Store, open_store
from tests.pipelines.finished import finish_stages, make_params

RACERS = 2
SECONDS = 120.0  # that one waits for the other to be ready

Told = Registration | str
"""What a racer was told: what registration.json says when the stage ended, or an error's words."""


@dataclass
class Figures:
    """What came of the races; all but the first two are faults."""

    races: int = 0
    right: int = 0  # one challenger, in the registry and as it was told, and no other alias
    false_alias: int = 0  # told another one than a registration gives
    lost_alias: int = 0  # of a version that earned one: none told
    double_versions: int = 0  # beyond one for each adapter
    errors: int = 0

    def __str__(self) -> str:
        return ", ".join(f"{field.name.replace('_', ' ')} {getattr(self, field.name)}" for field in fields(self))


def race(folder: Path, uri: str, rounds: int) -> tuple[Figures, list[str]]:
    """Register so many rounds, each two adapters or, every other time, one; returns the errors' words too."""
    context = multiprocessing.get_context("spawn")  # a fork would share the parent's connections
    with context.Manager() as manager, ProcessPoolExecutor(RACERS, mp_context=context) as pool:
        ready = manager.Barrier(RACERS)
        racers = [pool.submit(_race, place, folder / f"project-{place}", uri, rounds, ready) for place in range(RACERS)]
        told = [racer.result() for racer in racers]
    figures, store = Figures(), open_store(make_params(uri=uri).tracking, folder)
    for number, one_race in enumerate(zip(*told, strict=True)):
        _count(figures, store, _model(number), one_race)
    return figures, [words for each in told for words in each if isinstance(words, str)]


def _model(number: int) -> str:
    return f"race-{number}"


def _race(place: int, root: Path, uri: str, rounds: int, ready: Barrier) -> list[Told]:
    root.mkdir(parents=True)
    return [_one(place, root, uri, number, ready) for number in range(rounds)]


def _one(place: int, root: Path, uri: str, number: int, ready: Barrier) -> Told:
    """Register the racer's own adapter under a new name or, every other time, one that both have and no store does."""
    files = StageFiles(**finish_stages(root, seed=place if number % 2 == 0 else RACERS + number))
    out = root / "registration.json"
    out.unlink(missing_ok=True)
    ready.wait(SECONDS)
    try:
        register.run(make_params(_model(number), uri), root=root, files=files, out=out)
    except Exception as error:  # noqa: BLE001  (any is a fault, and is counted)
        return f"{type(error).__name__}: {error}"
    return read_registration(out)


def _count(figures: Figures, store: Store, model: str, told: tuple[Told, ...]) -> None:
    figures.races += 1
    made = [one for one in told if isinstance(one, Registration)]
    figures.errors += len(told) - len(made)
    versions = store.client.search_model_versions(f"name = '{model}'")
    adapters = {version.tags[ADAPTER] for version in versions}
    figures.double_versions += len(versions) - len(adapters)
    has = {alias: str(number) for alias, number in store.client.get_registered_model(model).aliases.items()}
    figures.false_alias += sum(one.alias not in (None, CHALLENGER) for one in made)
    figures.lost_alias += sum(one.alias is None for one in made)
    figures.right += list(has) == [CHALLENGER] and has[CHALLENGER] in {str(one.version) for one in made}
