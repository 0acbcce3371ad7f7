"""``reft doctor``: every finding about this machine and this project, and what to do about each."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil

from flows.runs import dvc
from flows.runs.project import has_git_identity
from flows.runs.schedule import check_server
from pipelines.contracts.base import BaseRecord
from pipelines.errors import PipelineError
from pipelines.params.whole import Params, load_params
from pipelines.project.code import check_graph
from pipelines.project.graph import read_graph
from pipelines.runtime.process import work_folder
from pipelines.upkeep.checkup import Finding, check_base, check_hardware, check_installation, check_places


def examine(root: Path) -> list[Finding]:
    """Run every check; nothing is changed."""
    params, findings = _params(root)
    base, about_base = _base(root)
    return [
        *check_installation(root),
        *findings,
        *check_hardware(params, root, base),
        *about_base,
        *(check_places(params, root) if params is not None else []),
        *_repository(root),
        *_server(),
        *_processes(root),
    ]


def _params(root: Path) -> tuple[Params | None, list[Finding]]:
    try:
        return load_params(root / "params.yaml"), [Finding("params.yaml", "ok", "keeps every rule")]
    except PipelineError as error:
        return None, [Finding("params.yaml", "fail", str(error), "Correct it.")]


def _base(root: Path) -> tuple[BaseRecord | None, list[Finding]]:
    """What is found at the base's record, whose place dvc.yaml names; or that dvc.yaml cannot be read."""
    if not (root / "dvc.yaml").is_file():
        return None, []  # a finding of _repository
    restore = "Correct it, or: git checkout HEAD dvc.yaml"
    try:
        graph = read_graph(root)
    except PipelineError as error:
        return None, [Finding("dvc.yaml", "fail", str(error), restore)]
    try:
        check_graph(root)
    except PipelineError as error:
        return None, [Finding("dvc.yaml", "fail", f"{error.rule}; got {error.got}", error.do)]
    if "base" not in graph.paths:
        return None, [Finding("dvc.yaml", "fail", "its vars name no path of the base", restore)]
    return check_base(root / graph.paths["base"])


def _repository(root: Path) -> Iterator[Finding]:
    if shutil.which("git") is None:
        yield Finding("git", "fail", "not installed", "Install git.")
        return
    try:
        dvc.check_project(root)
    except PipelineError as error:
        yield Finding("project", "fail", str(error.rule), error.do)
        return
    if has_git_identity(root):
        yield Finding("git", "ok", "knows who commits")
    else:
        do = "git config user.name and user.email; commits and dvc exp run need them."
        yield Finding("git", "warn", "does not know who you are", do)
    try:
        dvc.stages_run(root)
    except PipelineError as error:
        yield Finding("dvc.lock", "fail", str(error.got), error.do)
        return  # DVC answers nothing then
    if dvc.half_written(root):
        yield Finding("DVC", "warn", "was killed while it noted who works here", "The next reft run clears that away.")
    else:
        yield _remote(root)


def _remote(root: Path) -> Finding:
    if not dvc.read(root, ["remote", "list"]).strip():
        return Finding("DVC remote", "warn", "none: nothing is pushed", "Run: reft setup")
    try:
        dvc.read(root, ["status", "--cloud"])
    except PipelineError as error:
        return Finding("DVC remote", "fail", str(error.got), "Check its address, the network and your access to it.")
    return Finding("DVC remote", "ok", "answers")


def _server() -> Iterator[Finding]:
    try:
        yield Finding("Prefect server", "ok", f"{check_server()} answers")
    except PipelineError as error:
        if error.got == "no PREFECT_API_URL":
            yield Finding("Prefect server", "ok", "none set; each run starts its own, and a schedule needs one")
        else:
            yield Finding("Prefect server", "fail", str(error.got), error.do)


def _processes(root: Path) -> Iterator[Finding]:
    """Who works in the project now, and what those that were killed left."""
    busy = list(_at_work(root))
    for process in busy:
        words = " ".join(process.cmdline()[-6:])[:100]
        do = f"Wait for it, or end it: kill {process.pid}"
        yield Finding("at work", "warn", f"process {process.pid}: {words}", do)
    left = [path.stem for path in sorted((work_folder(root) / "locks").glob("*.json")) if _dead(path)]
    if left:
        said = f"a killed process left its name at {', '.join(left)}"
        yield Finding("locks", "ok", f"{said}; the lock itself went with it, and the next run goes on")
    elif not busy:
        yield Finding("locks", "ok", "nobody works here")


def _at_work(root: Path) -> Iterator[psutil.Process]:
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            words = process.cmdline()
            stage = words[1:3] == ["-m", "pipelines"]
            repro = "repro" in words and any(Path(word).name in {"dvc", "dvc.exe"} for word in words[:4])
            if (stage or repro) and Path(process.cwd()).resolve() == root.resolve():
                yield process


def _dead(holder: Path) -> bool:
    try:
        return not psutil.pid_exists(int(json.loads(holder.read_text(encoding="utf-8"))["pid"]))
    except (OSError, ValueError, KeyError, TypeError):
        return True
