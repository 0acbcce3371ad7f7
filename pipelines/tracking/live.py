"""Figures of a stage that runs, in MLflow while it runs."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pipelines.errors import PipelineError
from pipelines.params.whole import TrackingParams
from pipelines.tracking.runs import (
    INPUT_HASH,
    STAGE,
    Run,
    Status,
    Store,
    child_tags,
    ensure_run,
    open_store,
    store_errors,
)
from pipelines.tracking.store import store_uri, unreachable

log = logging.getLogger(__name__)


@dataclass
class _Line:
    """The connection of a live run and its children: down once, down for all of them."""

    up: bool
    uri: str

    @contextlib.contextmanager
    def degrading(self) -> Iterator[None]:
        """Log what goes wrong with the store once, and go on without it."""
        try:
            yield
        except store_errors() as error:
            self.up = False
            log.warning("The stage goes on, and register logs the rest. %s", unreachable(self.uri, error))


@dataclass
class LiveRun:
    """A run that is logged while its stage works. Without a store it logs nothing and the stage goes on.

    What is missing in the end, the register stage adds from the files.
    """

    _run: Run | None
    _line: _Line = field(repr=False)

    def log_params(self, values: Mapping[str, object]) -> None:
        """See :meth:`Run.log_params`."""
        self._try(lambda run: run.log_params(values))

    def log_metrics(self, values: Mapping[str, float], *, step: int = 0) -> None:
        """See :meth:`Run.log_metrics`."""
        self._try(lambda run: run.log_metrics(values, step=step))

    def log_metric(self, key: str, value: float, *, step: int = 0) -> None:
        """Log one value."""
        self.log_metrics({key: value}, step=step)

    def set_tags(self, values: Mapping[str, object]) -> None:
        """See :meth:`Run.set_tags`."""
        self._try(lambda run: run.set_tags(values))

    def log_files(self, folder: str, paths: Sequence[Path]) -> None:
        """See :meth:`Run.log_files`."""
        self._try(lambda run: run.log_files(folder, paths))

    @contextlib.contextmanager
    def child(self, name: str, *, stopped_by: tuple[type[Exception], ...] = ()) -> Iterator[LiveRun]:
        """A run nested in this one and found again by its name; it ends as :func:`live_run` says.

        Args:
            name: "trial-3" for trial 3; the register stage looks for that.
            stopped_by: exceptions that end it as KILLED and not as FAILED, as a pruned trial's does.
        """
        live = LiveRun(None, self._line)
        if self._run is not None:
            live._start(self._run.store, name, child_tags(self._run, name))
        with live._ended(stopped_by):
            yield live

    def _start(self, store: Store, name: str, tags: Mapping[str, object]) -> None:
        if self._line.up:
            with self._line.degrading():
                run = ensure_run(store, name, tags)
                run.restart()
                self._run = run

    @contextlib.contextmanager
    def _ended(self, stopped_by: tuple[type[Exception], ...] = ()) -> Iterator[None]:
        status: Status = "KILLED"  # for what is no Exception: Ctrl-C, an exit
        try:
            yield
            status = "FINISHED"
        except Exception as error:
            status = "KILLED" if isinstance(error, stopped_by) else "FAILED"
            raise
        finally:
            self._try(lambda run: run.end(status))

    def _try(self, call: Callable[[Run], None]) -> None:
        if self._run is not None and self._line.up:
            with self._line.degrading():
                call(self._run)


@contextlib.contextmanager
def live_run(tracking: TrackingParams, root: Path, stage: str, input_hash: str, name: str) -> Iterator[LiveRun]:
    """The run of a stage on these inputs, open while the block runs.

    A run that the same stage left for the same inputs (killed, failed or done) is opened again, not doubled. It ends as
    FINISHED, as FAILED after an exception, or as KILLED after Ctrl-C.

    Args:
        tracking: where the store is.
        root: the project folder.
        stage: "search", "train" or "align".
        input_hash: hash of everything that the stage reads; the register stage finds the run by it.
        name: the run's name on MLflow's pages, after the project's; the stage register adds what came out.
    """
    live = LiveRun(None, _Line(up=True, uri=store_uri(tracking, root)))
    try:
        live._start(open_store(tracking, root), f"{root.resolve().name} {name}", {STAGE: stage, INPUT_HASH: input_hash})
    except PipelineError as error:
        log.warning("Nothing is logged live; register logs it later. %s", error)
    with live._ended():
        yield live


def log_report(tracking: TrackingParams, root: Path, *, study: str, input_hash: str, report: Path) -> None:
    """Put the report of a search, which is made when all its trials have ended, into the run that they were logged to.

    Where the store does not answer, that is left to the stage register.
    """
    uri = store_uri(tracking, root)
    try:
        store = open_store(tracking, root)
        try:
            run = ensure_run(store, study, {STAGE: "search", INPUT_HASH: input_hash})
            run.log_files("search", [report])
            run.end("FINISHED")
        except store_errors() as error:
            raise unreachable(uri, error) from None
    except PipelineError as error:
        log.warning("The report is not logged; register logs it later. %s", error)
