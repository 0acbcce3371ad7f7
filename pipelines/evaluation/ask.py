"""Systems are asked rows, one after the other, with one bar for all that is left; what was answered is kept."""

from __future__ import annotations

import gc
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from tqdm import tqdm

from pipelines.bases.load import load_tokenizer
from pipelines.contracts.prepared import Row
from pipelines.contracts.task import task_sha256
from pipelines.evaluation.kept import AnswersOf, KeptAnswers
from pipelines.evaluation.rows import Asked
from pipelines.evaluation.systems import System
from pipelines.exchange.imports import refusals
from pipelines.model.scores import AnyModel, ask, check_numbers
from pipelines.model.workspace import Workspace, open_workspace
from pipelines.params.whole import Params
from pipelines.project.keys import answers_folder
from pipelines.registry.contest import with_tokens
from pipelines.runtime.process import locked
from pipelines.tasks.family import Answer
from reft import ReftConfig, ReftModel
from reft.adapters.any_method import load_method

BATCHES = 4  # that are asked together: what a process that is killed loses at most


@dataclass(frozen=True)
class Answered:
    """What a system answered.

    Attributes:
        system: who was asked.
        rows: that it was asked, with their choices in the tokens of its base.
        answers: to each of them.
        anew: how many were asked now; the others had been asked before.
    """

    system: System
    rows: Sequence[Row]
    answers: Sequence[Answer]
    anew: int


def ask_all(systems: Sequence[System], asked: Asked, params: Params, *, root: Path) -> list[Answered]:
    """Ask each system every row that it was not asked before; a process that is stopped, however, loses no more than
    some batches.

    Args:
        systems: who is asked; each on its own base, which is loaded if something is left to ask.
        asked: the rows.
        params: of params.yaml: batch size, device, and what is kept of the base.
        root: the project's root.

    Raises:
        ScoresError: if likelihoods are no numbers.
        BaseLimitError: if a base cannot run the rows.
        BusyError: if another process asks the same system the same task.
    """
    with ExitStack() as stack:
        keys = [_key(system, asked, params) for system in systems]
        for key in sorted(keys):  # in one order, so that no two processes wait for each other
            stack.enter_context(locked(root, f"answers-{key}", wait_seconds=params.run.wait_seconds))
        jobs = []
        for system, key in zip(systems, keys, strict=True):
            kept, rows = KeptAnswers(answers_folder(root) / key), _rows_for(system, asked, root)
            jobs.append(_Job(system, rows, kept, tuple(kept.missing(rows))))
        left = sum(len(job.missing) for job in jobs)
        done = sum(len(job.rows) for job in jobs) - left
        bar = stack.enter_context(tqdm(total=done + left, initial=done, unit="row", leave=False, disable=left == 0))
        for job in jobs:
            if job.missing:
                bar.set_description(f"score {job.system.title}")
                _ask(job, asked, params, root=root, bar=bar)
        return [Answered(job.system, job.rows, job.kept.of(job.rows), len(job.missing)) for job in jobs]


def _key(system: System, asked: Asked, params: Params) -> str:
    size, task = params.evaluate.batch_size, task_sha256(asked.prepared)
    return AnswersOf(system.adapter_sha256, system.record.sha256, task, size, params.computation()).key()


@dataclass(frozen=True)
class _Job:
    """Rows of a system, and those that it was not asked yet."""

    system: System
    rows: Sequence[Row]
    kept: KeptAnswers
    missing: Sequence[Row]


def _ask(job: _Job, asked: Asked, params: Params, *, root: Path, bar: tqdm[NoReturn]) -> None:
    """Ask what is missing, some batches at a time, and keep each of them before the next."""
    workspace = open_workspace(params.computation(), root=root, base=job.system.base, prepared=asked.prepared)
    size, task = params.evaluate.batch_size, workspace.family
    with _model(job.system, workspace) as model:
        for start in range(0, len(job.missing), BATCHES * size):
            rows = job.missing[start : start + BATCHES * size]
            said = ask(
                model, workspace.tokenizer, task, rows, batch_size=size, progress=lambda count: _advance(bar, count)
            )
            check_numbers(said, title=job.system.title)
            job.kept.keep(rows, said)
    del model, workspace
    gc.collect()  # hooks and modules refer to each other, and the next system needs the memory


@contextmanager
def _model(system: System, workspace: Workspace) -> Iterator[AnyModel]:
    """Yield the adapter on its base; or an edit that is switched off, which is the frozen base."""
    if system.adapter is None:
        edited = ReftModel(workspace.base, ReftConfig((0,), "l1", 1), seed=0)
        with edited.disabled():
            yield edited
        return
    with refusals():
        model = load_method(system.adapter, workspace.base, base_sha256=workspace.base_sha256)
    yield model.eval()


def _rows_for(system: System, asked: Asked, root: Path) -> Sequence[Row]:
    """The rows as this system's base counts their tokens."""
    if system.record.sha256 == asked.prepared_for or not any(row.choice_tokens for row in asked.rows):
        return asked.rows
    return with_tokens(asked.rows, load_tokenizer(system.record, root=root))


def _advance(bar: tqdm[NoReturn], rows: int) -> None:
    bar.update(rows)
