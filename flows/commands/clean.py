"""``reft clean``: what takes room, what nothing refers to, and the removal of that alone."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from flows.runs import dvc
from pipelines.params.whole import load_params
from pipelines.project.graph import read_graph
from pipelines.runtime.process import locked
from pipelines.upkeep.leftovers import (
    Holding,
    Leftover,
    clear_stale_temporaries,
    holdings,
    leftovers,
    remove,
    unused_bases,
)  # fmt: skip

# What the workspace, any commit or any experiment refers to stays.
GC = ["gc", "--workspace", "--all-commits", "--all-experiments"]


@dataclass(frozen=True)
class Survey:
    """What takes room, what could go, and how many files of DVC's cache no commit, experiment or workspace names.

    ``unused_cached`` is None for a cache outside the project: other projects may use it, and this one cannot know.
    """

    holdings: list[Holding]
    leftovers: list[Leftover]
    unused_cached: int | None


def survey(root: Path, *, bases: bool) -> Survey:
    """Return what could go; nothing is changed. With ``bases``, unused bases and all downloads are among what could go.

    Raises:
        PipelineError: if the folder is no project, or a store that refers to things does not answer.
    """
    dvc.check_project(root)
    params, graph = load_params(root / "params.yaml"), read_graph(root)
    found = leftovers(params, root, graph)
    if bases:
        found += unused_bases(params, root, graph)
    return Survey(holdings(root), found, unused_cached=_unused_cached(root))


def _unused_cached(root: Path) -> int | None:
    if not dvc.cache_folder(root).resolve().is_relative_to(root.resolve()):
        return None
    return sum(line.startswith("Removing ") for line in dvc.read(root, [*GC, "--dry"]).splitlines())


def clean(root: Path, *, bases: bool) -> int:
    """Remove what :func:`survey` finds, looking again under the project's lock; return the bytes that it freed.

    Raises:
        PipelineError: as :func:`survey`, and while a run works here.
    """
    with locked(root, "run", wait_seconds=0), locked(root, "stage", wait_seconds=0):
        before = sum(holding.bytes for holding in holdings(root))
        params = load_params(root / "params.yaml")
        found = survey(root, bases=bases)
        for leftover in found.leftovers:
            remove(leftover, params, root)
        clear_stale_temporaries(root)
        if found.unused_cached:
            dvc.read(root, [*GC, "--force"])
        return before - sum(holding.bytes for holding in holdings(root))
