"""The one reader of dvc.yaml: which stages there are, in which order, and where their files lie."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Any

from pipelines.errors import PipelineError
from pipelines.yaml_file import read_yaml


@dataclass(frozen=True)
class Stage:
    """A stage of dvc.yaml, with its paths resolved (relative to the project folder)."""

    name: str
    cmd: str
    deps: tuple[str, ...]
    params: tuple[str, ...]  # keys of params.yaml
    params_files: tuple[str, ...]  # other files of parameters that it depends on keys of
    outs: tuple[str, ...]  # outs and metrics: what the stage writes
    uncached: tuple[str, ...]  # those of them that DVC keeps no copy of


@dataclass(frozen=True)
class Graph:
    """dvc.yaml: the paths by name, and the stages in a topological order."""

    paths: dict[str, str]
    stages: tuple[Stage, ...]

    def stage(self, name: str) -> Stage:
        """The stage of that name."""
        return next(stage for stage in self.stages if stage.name == name)

    def after(self, name: str) -> tuple[str, ...]:
        """The names of the stage and of every stage that depends on it, in order."""
        chosen = [name]
        for stage in self.stages:
            if any(_feeds(self.stage(earlier), stage) for earlier in chosen) and stage.name not in chosen:
                chosen.append(stage.name)
        return tuple(chosen)


def read_graph(root: Path) -> Graph:
    """Read ``root/dvc.yaml``.

    Raises:
        PipelineError: if it is missing, unreadable, or its stages form a circle.
    """
    raw = read_yaml(root / "dvc.yaml")
    if not isinstance(raw, Mapping) or not isinstance(raw.get("stages"), Mapping):
        raise PipelineError("dvc.yaml must hold stages", got=root / "dvc.yaml")
    names: dict[str, Any] = {}
    try:
        for entry in raw.get("vars", []):
            names.update(entry)
        paths = dict(names.get("paths", {}))
        stages = {name: _stage(name, entry, names) for name, entry in raw["stages"].items()}
    except (AttributeError, KeyError, TypeError, ValueError, StopIteration) as error:
        raise PipelineError(
            "each stage of dvc.yaml must have a cmd, and lists of deps, params and outs",
            got=f"{type(error).__name__}: {error}",
            do="`dvc stage list` says where it is wrong.",
        ) from None
    order = TopologicalSorter(
        {name: [s.name for s in stages.values() if _feeds(s, stage)] for name, stage in stages.items()}
    )
    try:
        ordered = tuple(stages[name] for name in order.static_order())
    except CycleError as error:
        raise PipelineError(
            "the stages of dvc.yaml must not depend on each other in a circle", got=error.args[1]
        ) from None
    return Graph(paths=paths, stages=ordered)


def _stage(name: str, entry: Mapping[str, Any], names: Mapping[str, Any]) -> Stage:
    outs = [*entry.get("outs", []), *entry.get("metrics", []), *entry.get("plots", [])]
    params = entry.get("params", [])
    uncached = [out for out in outs if isinstance(out, Mapping) and next(iter(out.values())).get("cache") is False]
    return Stage(
        name=name,
        cmd=_fill(entry["cmd"], names),
        deps=_paths(entry.get("deps", []), names),
        params=tuple(key for key in params if isinstance(key, str)),
        params_files=tuple(file for entry in params if isinstance(entry, Mapping) for file in entry),
        outs=_paths(outs, names),
        uncached=_paths(uncached, names),
    )


def _paths(entries: list[Any], names: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(_fill(next(iter(e)) if isinstance(e, Mapping) else e, names) for e in entries)


def _fill(text: str, names: Mapping[str, Any]) -> str:
    """Replace each ``${a.b}`` by its value in ``vars``."""

    def value(match: re.Match[str]) -> str:
        found: Any = names
        for part in match.group(1).split("."):
            if not isinstance(found, Mapping) or part not in found:
                raise PipelineError("dvc.yaml may use only names that its vars hold", got=match.group(0))
            found = found[part]
        return str(found)

    return re.sub(r"\$\{([^}]+)\}", value, text)


def _feeds(earlier: Stage, later: Stage) -> bool:
    """Whether a dep of ``later`` is an output of ``earlier``, lies in one, or holds one."""
    return any(_overlap(out, dep) for out in earlier.outs for dep in later.deps)


def _overlap(one: str, other: str) -> bool:
    a, b = Path(one), Path(other)
    return a == b or a in b.parents or b in a.parents
