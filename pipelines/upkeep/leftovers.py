"""What work in progress and the base store hold, and what of it nothing refers to any more."""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from filelock import FileLock

from pipelines.contracts.base import read_base
from pipelines.contracts.recipe import read_best
from pipelines.contracts.search import read_search
from pipelines.contracts.training import read_training
from pipelines.diagnostics.neutral import read_neutral
from pipelines.errors import PipelineError
from pipelines.files import clear_stale, reft_home
from pipelines.params.whole import Params
from pipelines.project.graph import Graph
from pipelines.project.keys import (
    Inputs,
    answers_folder,
    cells_folder,
    cells_key,
    constants_folder,
    library_folder,
    study_key,
    train_key,
)
from pipelines.project.settings import StudySettings, TrainingSettings
from pipelines.registry.versions import referenced
from pipelines.runtime.process import work_folder
from pipelines.search.study import CONFIRM, delete_study, study_sizes
from pipelines.tracking.store import trials_uri
from reft import base_folder

Kind = Literal["checkpoints", "comparison", "constants", "study", "base", "download", "answers", "task rows"]


@dataclass(frozen=True)
class Holding:
    """A place that takes room: its bytes, and what it is for."""

    path: Path
    bytes: int
    what: str


@dataclass(frozen=True)
class Leftover:
    """Something that nothing refers to: a folder with its bytes, or a study by its name."""

    kind: Kind
    where: str
    bytes: int | None
    why: str


def holdings(root: Path) -> list[Holding]:
    """The places of this project and of the user's base store."""
    places = [
        (work_folder(root), "studies, checkpoints, constants, markers of this project"),
        (reft_home() / "bases", "base models of all projects"),
        (reft_home() / "downloads", "files as they were fetched; a base or data set is made from them"),
        (root / ".dvc" / "cache", "DVC's cache: data, adapters and plots of this project"),
    ]
    return [Holding(path, size(path), what) for path, what in places]


def leftovers(params: Params, root: Path, graph: Graph) -> list[Leftover]:
    """Work in progress of other inputs than the present ones: checkpoints, constants, studies that no version is from.

    Raises:
        PipelineError: if the tracking store or the database of trials does not answer: what they refer to is not known.
    """
    train, study = _present(params, root, graph)
    why = "of other inputs than the present ones"
    found = [
        Leftover("checkpoints", str(folder), size(folder), why)
        for folder in sorted((work_folder(root) / "train").glob("*"))
        if train and folder.is_dir() and folder.name not in train
    ]
    found += [*_cells(params, root, graph), *_constants(root, graph), *_of_other_code(root)]
    if not study or not _own_storage(params, root):
        return found  # a database that is shared may hold the studies of other projects
    kept = study | referenced(params, root).studies
    return found + [
        Leftover("study", name, None, f"{why}; {trials} trials")
        for name, trials in study_sizes(params.search.storage, root).items()
        if name.removesuffix(CONFIRM) not in kept
    ]


def unused_bases(params: Params, root: Path, graph: Graph) -> list[Leftover]:
    """Bases that neither models/base.json nor a registered version of this project names, and every download.

    The store is shared: another project may need one of them, and then makes it again from its source.
    """
    kept = set(referenced(params, root).bases)
    record = root / graph.paths["base"]
    if record.is_file():
        kept.add(read_base(record).sha256)
    bases = [
        Leftover("base", str(folder), size(folder), "neither this project nor a version of it uses it")
        for folder in sorted((reft_home() / "bases").glob("*"))
        if len(folder.name) == 64 and folder.is_dir() and folder.name not in kept
    ]
    downloads = [
        Leftover("download", str(folder), size(folder), "can be fetched again")
        for folder in sorted((reft_home() / "downloads").glob("*"))
        if folder.is_dir()
    ]
    return bases + downloads


def remove(leftover: Leftover, params: Params, root: Path) -> None:
    """Remove it; the caller holds the project's lock."""
    if leftover.kind == "study":
        delete_study(params.search.storage, root, leftover.where)
        return
    folder = Path(leftover.where)
    if leftover.kind == "base":
        with FileLock(folder.with_name(f"{folder.name}.lock")):
            shutil.rmtree(folder, onerror=_unless_gone)
        return
    shutil.rmtree(folder, onerror=_unless_gone)


def _unless_gone(_function: object, _path: str, raised: tuple[type[BaseException], BaseException, object]) -> None:
    """Go on where somebody else has removed what was to be."""
    if not isinstance(raised[1], FileNotFoundError):
        raise raised[1]


def clear_stale_temporaries(root: Path) -> None:
    """Remove the half-written files that killed processes left; those of living ones stay."""
    for folder in (work_folder(root), reft_home() / "bases", reft_home() / "downloads"):
        for parent, folders, names in os.walk(folder):
            for name in (*folders, *names):
                if name.startswith(".") and ".tmp-" in name:
                    clear_stale(Path(parent, name[1:].rpartition(".tmp-")[0]))


def size(path: Path) -> int:
    """Bytes of the files in a folder; links are not followed, and what vanishes meanwhile counts nothing."""
    total = 0
    for folder, _, names in os.walk(path):  # which passes over folders that vanish; rglob ends there
        for name in names:
            with suppress(FileNotFoundError):
                found = Path(folder, name).lstat()
                total += found.st_size if stat.S_ISREG(found.st_mode) else 0
    return total


def _constants(root: Path, graph: Graph) -> list[Leftover]:
    """Constants of other bases than the present one; its own are used again, and have a budget."""
    record = root / graph.paths["base"]
    if not record.is_file():
        return []
    present = base_folder(read_base(record).sha256)
    return [
        Leftover("constants", str(folder), size(folder), "of another base; can be computed again")
        for folder in sorted(constants_folder(root).glob("*"))
        if folder.is_dir() and folder.name != present
    ]


def _cells(params: Params, root: Path, graph: Graph) -> list[Leftover]:
    """Comparisons of methods on another base or other rows, or run in another way."""
    try:
        inputs = Inputs.of(root / graph.paths["base"], root / graph.paths["prepared"])
        neutral = read_neutral(params.evaluate.neutral, root).sha256
    except PipelineError:
        return []
    batch = params.evaluate.batch_size
    present = cells_key(inputs, params.computation(), score_batch=batch, neutral=neutral)
    why = "of other inputs than the present ones"
    return [
        Leftover("comparison", str(folder), size(folder), why)
        for folder in sorted(cells_folder(root).glob("*"))
        if folder.is_dir() and folder.name != present
    ]


def _of_other_code(root: Path) -> list[Leftover]:
    """Answers of adapters that were named, and rows of public tasks, that code of another release made."""
    kinds: tuple[tuple[Kind, Path], ...] = (("answers", answers_folder(root)), ("task rows", library_folder(root)))
    return [
        Leftover(kind, str(folder), size(folder), "of other code than the installed; can be made again")
        for kind, present in kinds
        for folder in sorted(present.parent.glob("*"))
        if folder.is_dir() and folder.name != present.name
    ]


def _present(params: Params, root: Path, graph: Graph) -> tuple[set[str], set[str]]:
    """Names of the checkpoints and studies of what is here: by the inputs, and by the figures of the last run.

    Empty sets mean that the present inputs are not known, so nothing can be called a leftover.
    """
    path = {name: root / place for name, place in graph.paths.items()}
    try:
        inputs = Inputs.of(path["base"], path["prepared"])
        best = read_best(path["search"] / "best.yaml", params.recipe_space())
    except PipelineError:
        return set(), set()
    key = train_key(inputs, best.recipe, TrainingSettings.of(params.train), params.computation(), seed=params.seed)
    train = {key, *_figure(path["train_metrics"], lambda file: read_training(file).input_hash)}
    present = f"search-{study_key(StudySettings.of(params), inputs)}"
    study = {present, best.study, *_figure(path["search_metrics"], lambda file: read_search(file).study)}
    return train, study


def _figure(path: Path, read: Callable[[Path], str]) -> Iterator[str]:
    if path.is_file():
        yield read(path)


def _own_storage(params: Params, root: Path) -> bool:
    uri = trials_uri(params.search.storage, root)
    return uri.startswith("sqlite:///") and Path(uri.removeprefix("sqlite:///")).is_relative_to(root.resolve())
