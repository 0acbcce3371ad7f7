"""The kill matrix: every process of a run, killed with ``kill -9`` in every stage. ``make kill-matrix`` prints it.

A cell starts ``reft run`` in a fresh project, waits until the stage is in the middle of its work, and kills the flow,
the ``dvc`` process, the stage process or the server that Prefect started for the run; or it starts ``dvc repro`` by
itself, and kills that. What must hold: what was below the killed process is gone, the same command run again ends well,
and every output is that of a run that nobody killed. A run whose server is killed ends as if nothing had been.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

from flows.runs.dvc import QUIET
from pipelines.contracts.training import read_training
from pipelines.files import sha256_file
from tests.progress import Progress, outliving, wait
from tests.project import Project, make_tiny_project
from tests.record import Record

SERVER, ALONE = "server", "dvc alone"
PROCESSES = ("flow", "dvc", "stage", SERVER, ALONE)
COMMANDS = {ALONE: ("dvc", "repro")}  # of every other process: reft run
STAGES = ("prepare", "search", "train", "evaluate", "register")
DEADLINE = 600.0  # seconds of the processor for a run, which takes one; or of the clock without progress
ORPHAN_SECONDS = 15.0  # that a process may outlive the one it works for, where it has the processor

# Long enough for a kill to fall into the middle, short enough for 25 cells.
CHANGES = {"search.trials": 3, "train.epochs": 12, "train.checkpoint_every": 5}


@dataclass(frozen=True)
class Outcome:
    """What a cell came to; no problem means that all held."""

    process: str
    stage: str
    how: str
    problems: tuple[str, ...]
    seconds: float


@dataclass(frozen=True)
class Facts:
    """What a finished project holds, told so that two projects can be compared."""

    adapter: str
    prepared: str
    predictions: str
    trials: tuple[str, ...]
    versions: int
    runs: tuple[str, ...]


def known_facts(record: Record, of: str) -> Facts | None:
    """The facts that the record has of an undisturbed project; None if it has none."""
    found = record.find({"undisturbed": of})
    if found is None:
        return None
    told = found["facts"]
    return Facts(**{name: tuple(value) if isinstance(value, list) else value for name, value in told.items()})


def kept_facts(found: Facts, record: Record, of: str) -> Facts:
    """The same facts, which the record is told."""
    record.add({"undisturbed": of, "facts": asdict(found)})
    return found


def facts(project: Project) -> Facts:
    """Read what a finished project holds."""
    root = project.root
    trials = json.loads((root / "search/trials.json").read_text(encoding="utf-8"))
    kept = [t for t in trials if t["error"] != "killed with its process"]
    with closing(sqlite3.connect(root / "mlflow/mlflow.db")) as db:
        versions = db.execute("select count(*) from model_versions").fetchone()[0]
        runs = db.execute("select name from runs where lifecycle_stage = 'active' order by name").fetchall()
    return Facts(
        adapter=read_training(root / "metrics/train.json").adapter_sha256,
        prepared=_hash(root / "data/prepared"),
        predictions=sha256_file(root / "reports/predictions.parquet"),
        trials=tuple(json.dumps([t["state"], t["value"], t["params"]], sort_keys=True) for t in kept),
        versions=versions,
        # Runs are called by their project, which is not the reference's here.
        runs=tuple(
            sorted(name.replace(root.name, "PROJECT", 1) for (name,) in runs if "trial" not in name.split(" ")[0])
        ),
    )


def _hash(folder: Path) -> str:
    digest = hashlib.sha256()
    for file in sorted(folder.rglob("*")):
        if file.is_file():
            digest.update(file.relative_to(folder).as_posix().encode() + file.read_bytes())
    return digest.hexdigest()


def in_the_middle(project: Project, stage: str) -> Callable[[], bool]:
    """What tells that the stage is in the middle of its work."""
    root = project.root

    def rows(database: Path, query: str) -> int:
        if not database.is_file():
            return 0
        with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True, timeout=10)) as db:
            try:
                return int(db.execute(query).fetchone()[0])
            except sqlite3.OperationalError:  # not made yet
                return 0

    def holds_the_lock() -> bool:
        try:
            return f"pipelines {stage} " in _command_of((root / ".reft/locks/stage.json").read_text(encoding="utf-8"))
        except (OSError, ValueError, KeyError, psutil.Error):
            return False

    if stage == "search":
        ended = "select count(*) from trials where state in ('COMPLETE', 'PRUNED')"
        return lambda: rows(root / ".reft/optuna.db", ended) >= 1
    if stage == "train":
        return lambda: bool(list((root / ".reft/train").glob("*/checkpoints/*/*.safetensors")))
    if stage == "register":
        tagged = "select count(*) from tags where key = 'reft.pipeline'"
        return lambda: holds_the_lock() and rows(root / "mlflow/mlflow.db", tagged) >= 1
    return holds_the_lock


def _command_of(holder: str) -> str:
    return " ".join(psutil.Process(json.loads(holder)["pid"]).cmdline()) + " "


def run_chain(kills: Sequence[tuple[str, str]], begin: Born, folder: Path) -> Outcome:
    """Kill a process in a stage of a run, another in a stage of the next, and so on; then let one run to its end."""
    started = time.monotonic()
    home = folder.with_name(f"{folder.name}-home")
    shutil.copytree(begin.home, home, symlinks=True)
    shutil.copytree(begin.project, folder, symlinks=True)
    project = Project(folder, make_environment(home))
    problems: list[str] = []
    below: list[psutil.Process] = []
    try:
        for process, stage in kills:
            death = kill_in(project, process, stage)
            problems += [*death.problems, *(f"{_name(p)} went on beside the next run" for p in outliving(below, 0))]
            below = death.below
            if process == SERVER and death.code != 0:
                problems.append(f"the run ended with {death.code}")
        before = project.markers()
        again = project.run(*COMMANDS.get(kills[-1][0], ("reft", "run")), check=False, timeout=DEADLINE)
        if again.returncode != 0:
            problems.append(f"the next run ended with {again.returncode}: {again.stderr.strip().splitlines()[-1:]}")
        elif death.code == 0 and project.ran_since(before):
            problems.append(f"the next run had to do {sorted(project.ran_since(before))}")
        problems += [f"{_name(p)} went on beside the next run" for p in outliving(below, 0)]
        if not problems:
            problems += differences(facts(project), begin.reference)
        problems += [f"{path} was left" for path in leftovers(folder)]
        problems += still_running(home)
    finally:
        end_processes(folder)
    how = "the same run went on" if death.code == 0 else "the next run finished"
    names = [" then ".join(words) for words in zip(*kills, strict=True)]
    return Outcome(names[0], names[1], how, tuple(problems), time.monotonic() - started)


@dataclass(frozen=True)
class Death:
    """How a run ended one of whose processes was killed, what was below that process, and what outlived it."""

    code: int
    below: list[psutil.Process]
    problems: list[str]


def kill_in(project: Project, process: str, stage: str) -> Death:
    """Start a run, kill one of its processes in the middle of a stage, and wait for the run's end."""
    log = project.root.parent / f"{project.root.name}.log"
    flow = project.start(*COMMANDS.get(process, ("reft", "run")), log=log)
    try:
        victims = _wait_for(flow, process, stage, in_the_middle(project, stage), log)
        below = psutil.Process(victims[process]).children(recursive=True)
        os.kill(victims[process], signal.SIGKILL)
        code = wait(flow, DEADLINE)
    finally:
        if flow.poll() is None:
            flow.kill()
        flow.wait()
    # Prefect's own server does not look after its flow; it writes nothing here, and the next run ends it.
    workers = [p for p in below if not is_server(p)]
    return Death(code, below, [f"{_name(p)} outlived the {process}" for p in outliving(workers, ORPHAN_SECONDS)])


def make_environment(home: Path) -> dict[str, str]:
    """The environment of the cells: their own homes, one thread (other cores have other cells)."""
    from tests.project import environment

    return environment(home) | {"OMP_NUM_THREADS": "1"}


def _wait_for(
    flow: subprocess.Popen[bytes], process: str, stage: str, ready: Callable[[], bool], log: Path
) -> dict[str, int]:
    """Wait until the stage is in the middle of its work and the process is there; the numbers of those that are."""
    progress = Progress(flow, DEADLINE)
    while True:
        if flow.poll() is not None:
            said = log.read_text(encoding="utf-8", errors="replace")[-2000:]
            raise AssertionError(f"the run ended with {flow.returncode} before {stage} could be killed: {said}")
        if ready():
            found = {"flow": flow.pid, ALONE: flow.pid}
            for child in psutil.Process(flow.pid).children(recursive=True):
                command = words_of(child)
                if command[1:5] == [*QUIET, "repro"] and stage in command:
                    found["dvc"] = child.pid
                if command[1:4] == ["-m", "pipelines", stage]:
                    found["stage"] = child.pid
                if is_server(child):
                    found[SERVER] = child.pid
            if "stage" in found and process in found:
                return found
        progress.check()
        time.sleep(0.02)


def is_server(process: psutil.Process) -> bool:
    """Whether a process is the server that Prefect starts for a run without one."""
    return "prefect.server" in " ".join(words_of(process))


def words_of(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def _name(process: psutil.Process) -> str:
    return " ".join(words_of(process)[:5]) or str(process.pid)


def differences(found: Facts, expected: Facts) -> Iterator[str]:
    for name in Facts.__dataclass_fields__:
        if getattr(found, name) != getattr(expected, name):
            yield f"{name}: {getattr(found, name)} instead of {getattr(expected, name)}"


def still_running(home: Path) -> Iterator[str]:
    with closing(sqlite3.connect(home / "prefect" / "prefect.db")) as db:
        for (name,) in db.execute("select name from flow_run where state_type = 'RUNNING'"):
            yield f"Prefect takes the run {name} for a running one"


def leftovers(folder: Path) -> list[str]:
    outside = (path for path in folder.rglob("*") if not {".git", ".dvc", ".reft"} & set(path.parts))
    return [str(path.relative_to(folder)) for path in outside if ".tmp" in path.name or path.name.endswith("~")]


def end_processes(folder: Path) -> None:
    for process in psutil.process_iter(["cwd"]):
        if process.info["cwd"] == str(folder):
            process.kill()


@dataclass(frozen=True)
class Born:
    """What kills begin from: a project that has run nothing, its home, and what an undisturbed run leaves."""

    project: Path
    home: Path
    reference: Facts


def born(folder: Path, reference: Facts | None = None) -> Born:
    """Make a project to copy, and run a copy of it that nobody kills, unless what that leaves is known.

    That run is DVC's own: what a flow leaves must be the same.
    """
    project = make_tiny_project(folder / "project", folder / "home", CHANGES).root
    if reference is not None:
        return Born(project, folder / "home", reference)
    shutil.copytree(project, folder / "undisturbed", symlinks=True)
    shutil.copytree(folder / "home", folder / "undisturbed-home", symlinks=True)
    undisturbed = Project(folder / "undisturbed", make_environment(folder / "undisturbed-home"))
    undisturbed.run("dvc", "repro", timeout=DEADLINE)
    return Born(project, folder / "home", facts(undisturbed))


def main() -> int:
    """Run every cell and print the table; the exit code is 1 when one has a problem."""
    chosen = [tuple(word.split(":")) for word in sys.argv[1:]] or [(p, s) for s in STAGES for p in PROCESSES]
    outcomes = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name).resolve()
        begin = born(folder)
        print("| killed | in stage | outcome | seconds |\n|---|---|---|---|", flush=True)
        for process, stage in chosen:
            cell = folder / f"{process}-{stage}"
            outcome = run_chain([(process, stage)], begin, cell)
            said = "; ".join(outcome.problems) or f"right: {outcome.how}"
            print(f"| {process} | {stage} | {said} | {outcome.seconds:.0f} |", flush=True)
            outcomes.append(outcome)
            shutil.rmtree(cell, ignore_errors=True)
            shutil.rmtree(cell.with_name(f"{cell.name}-home"), ignore_errors=True)
    right = sum(not outcome.problems for outcome in outcomes)
    print(f"\n{right} of {len(outcomes)} cells are right")
    return 0 if right == len(outcomes) else 1


if __name__ == "__main__":
    sys.exit(main())
