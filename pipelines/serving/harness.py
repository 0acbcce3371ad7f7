"""Tasks of lm-evaluation-harness, asked of an adapter and of its frozen base: ``reft evaluate --harness``.

Nothing is downloaded without being asked for: the libraries that fetch data sets are told to stay offline, and a task
whose data are not on this machine is an error that says so.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.bases.load import LoadedBase, load_base
from pipelines.contracts.base import read_base
from pipelines.errors import PipelineError
from pipelines.params.whole import Params
from pipelines.runtime.device import resolve_device
from reft import ReftEncoder
from reft.adapters.any_method import MethodModel, load_method

if TYPE_CHECKING:
    from lm_eval.tasks import TaskManager
    from transformers import PreTrainedTokenizerBase

OFFLINE = ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "HF_EVALUATE_OFFLINE")


@dataclass(frozen=True)
class HarnessAsked:
    """What is asked.

    Attributes:
        tasks: names that the harness knows, or folders of YAML files as its own are.
        limit: of each task's documents, the first so many; None for all.
        download: whether data sets that are not here may be fetched.
    """

    tasks: tuple[str, ...]
    limit: int | None
    download: bool


@dataclass(frozen=True)
class HarnessFigure:
    """A figure of a task, of the frozen base and of the adapter; each with its standard error where it has one."""

    task: str
    measure: str
    documents: int
    base: float
    base_error: float | None
    adapter: float
    adapter_error: float | None


def run_harness(params: Params, asked: HarnessAsked, *, root: Path, base: Path, adapter: Path) -> list[HarnessFigure]:
    """Ask both systems every task.

    Args:
        params: of params.yaml.
        asked: which tasks.
        root: the project's root.
        base: base.json.
        adapter: the adapter directory.

    Raises:
        PipelineError: if lm-eval is not installed, a task is unknown, or its data are not on this machine.
    """
    if find_spec("lm_eval") is None:
        raise PipelineError(
            "reft evaluate --harness needs lm-evaluation-harness", got="no lm_eval",
            do="In a clone: make setup. Elsewhere: pip install 'WHEEL[harness]', the file that make wheel makes.",
        )  # fmt: skip
    params.require_decoder("reft evaluate --harness")
    with _network(allowed=asked.download):
        manager, names = _named(asked.tasks)
        tasks = _loaded(manager, names)  # before the base is, which takes longer
        loaded, model = load_adapted(params, root=root, base=base, adapter=adapter)
        edited = _measured(model, loaded.tokenizer, tasks, asked, params.evaluate.batch_size, manager)
        with model.disabled():
            anew = _loaded(manager, names)  # a task keeps what was asked of it
            frozen = _measured(model, loaded.tokenizer, anew, asked, params.evaluate.batch_size, manager)
    return list(_figures(edited, frozen))


def load_adapted(params: Params, *, root: Path, base: Path, adapter: Path) -> tuple[LoadedBase, MethodModel]:
    """The base, and the adapter on it.

    Raises:
        PipelineError: if the adapter is of another base.
    """
    record = read_base(base)
    loaded = load_base(record, device=resolve_device(params.run.device), root=root, outputs=0)
    try:
        return loaded, load_method(adapter, loaded.model, base_sha256=record.sha256).eval()
    except ValueError as error:
        do = "Name an adapter that was trained on the project's base."
        raise PipelineError("the adapter must be of this base", got=error, do=do) from None


def _named(tasks: Sequence[str]) -> tuple[TaskManager, list[str]]:
    """The harness's index with the folders that are named, and the names of all tasks that are meant."""
    from lm_eval.tasks import TaskManager

    folders = [name for name in tasks if Path(name).is_dir()]
    paths = [str(Path(folder).resolve()) for folder in folders]
    manager = TaskManager(include_path=paths, include_defaults=len(folders) < len(tasks))  # its own take seconds
    own = {name: _own_tasks(name) for name in folders}
    names = [each for name in tasks for each in own.get(name, [name])]
    unknown = [name for name in names if name not in manager.all_tasks]
    if unknown:
        raise PipelineError(
            "a task must be a name that lm-evaluation-harness knows, or a folder of its YAML files",
            got=", ".join(unknown), do="Run: lm-eval ls tasks",
        )  # fmt: skip
    return manager, names


def _own_tasks(folder: str) -> list[str]:
    from lm_eval.tasks import TaskManager

    found = TaskManager(include_path=[str(Path(folder).resolve())], include_defaults=False).all_subtasks
    if not found:
        raise PipelineError(
            "a folder of tasks must hold YAML files with the key task", got=folder, do="Correct the folder."
        )
    return found


def _loaded(manager: TaskManager, names: Sequence[str]) -> list[Any]:
    """The tasks with their data."""
    found = []
    for name in names:
        try:
            found += manager.load([name])["tasks"].values()
        except (OSError, ImportError) as error:
            raise PipelineError(
                f"the data of {name} must be on this machine, since nothing is downloaded without being asked for",
                got=f"{type(error).__name__}: {error}",
                do="Run it with --download, or fetch the data set and name it in a task file of your own.",
            ) from error
    return found


def _measured(
    model: MethodModel,
    tokenizer: PreTrainedTokenizerBase,
    tasks: Sequence[Any],
    asked: HarnessAsked,
    batch_size: int,
    manager: TaskManager,
) -> Mapping[str, Any]:
    from lm_eval import simple_evaluate

    from pipelines.serving.harness_model import HarnessModel

    assert not isinstance(model, ReftEncoder)
    found = simple_evaluate(
        HarnessModel(model, tokenizer, batch_size=batch_size), tasks=list(tasks), limit=asked.limit,
        task_manager=manager, log_samples=False, bootstrap_iters=1000,
    )  # fmt: skip
    assert found is not None  # one process
    return found


def _figures(edited: Mapping[str, Any], frozen: Mapping[str, Any]) -> Iterator[HarnessFigure]:
    for task, own in edited["results"].items():
        documents = int(edited["n-samples"][task]["effective"]) if task in edited["n-samples"] else 0
        for key, value in own.items():
            measure, _, chosen = key.partition(",")
            if "," not in key or measure.endswith("_stderr") or not isinstance(value, int | float):
                continue
            name, error = (measure if chosen == "none" else f"{measure} ({chosen})"), f"{measure}_stderr,{chosen}"
            other = frozen["results"][task]
            yield HarnessFigure(
                task, name, documents, float(other[key]), _number(other.get(error)), float(value),
                _number(own.get(error)),
            )  # fmt: skip


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) else None


@contextmanager
def _network(*, allowed: bool) -> Iterator[None]:
    """Keep the libraries that fetch data sets offline, where that is not allowed; they read the environment once."""
    if allowed:
        yield
        return
    kept = {name: os.environ.get(name) for name in OFFLINE}
    os.environ |= dict.fromkeys(OFFLINE, "1")
    changed = [
        (module, name, getattr(module, name))
        for module in map(import_module, ("huggingface_hub.constants", "datasets.config", "evaluate.config"))
        for name in OFFLINE
        if hasattr(module, name)
    ]
    try:
        for module, name, _ in changed:
            setattr(module, name, True)
        yield
    finally:
        for module, name, value in changed:
            setattr(module, name, value)
        for name, text in kept.items():
            if text is None:
                os.environ.pop(name)
            else:
                os.environ[name] = text
