"""Kills at random moments of random processes, until projects have had so many; then they are let end.

``python -m tests.random_kills [COUNT] [SEED]`` prints a table. Unlike the kill matrix, a run is hit again and
again, at any moment: while it starts, between stages, while Prefect or DVC write their own notes. At the end the
project holds what one does that nobody killed, nothing works on, and no half-written file is left. With a file named by
``REFT_RECORD`` a command that was stopped goes on with the projects that it lacks.

A moment is told by the processor time that the run used: it falls into the same work on a machine that is busy.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

from flows.runs.dvc import QUIET
from pipelines.search.study import ERROR, INTERRUPTED, MAX_KILLS, RETRY_OF
from tests.kills import (
    DEADLINE,
    ORPHAN_SECONDS,
    SERVER,
    Born,
    Facts,
    born,
    differences,
    end_processes,
    facts,
    is_server,
    kept_facts,
    known_facts,
    leftovers,
    make_environment,
    still_running,
    words_of,
)
from tests.progress import NoEndError, Progress, outliving
from tests.project import Project
from tests.record import Record, named_record

WORKER, SEARCH = "worker", "(search at work)"
KINDS = ("flow", "dvc", "stage", SERVER, WORKER)
KILLS_A_LIFE = 20
SIDE_BY_SIDE = 2
PAUSES = (0.0, 4.0)  # processor seconds between two kills of a life
PATIENCE = 4.0  # processor seconds in which a process of the kind that is to be killed may come
UNTOLD = "was not told how this run ended"  # by which a run whose server was killed again and again says so
RUNS_AFTER = 2  # a run that is hit as often as a stage may be tried again has failed; the next one must not


@dataclass(frozen=True)
class Life:
    """What befell a project: how often what was killed, how many runs it took, and what is wrong in the end."""

    number: int
    kills: int
    killed: dict[str, int]
    runs: int
    problems: tuple[str, ...]
    seconds: float

    @property
    def total(self) -> int:
        return sum(self.killed.values())


def live(number: int, kills: int, seed: int, begin: Born, folder: Path) -> Life:
    """One life: in every other one a search of two workers, for half of the kills, then whole runs, until one ends."""
    started, chance = time.monotonic(), random.Random(f"{seed}-{number}")
    home, root, log = folder / f"home-{number}", folder / f"life-{number}", folder / f"life-{number}.log"
    shutil.copytree(begin.home, home, symlinks=True)
    shutil.copytree(begin.project, root, symlinks=True)
    project, killed, runs, problems = Project(root, make_environment(home)), Counter[str](), 0, list[str]()
    commands = [("reft", "run")] if number % 2 else [("reft", "search", "--workers", "2"), ("reft", "run")]
    try:
        for command in commands:
            undisturbed, most = 0, kills if command == commands[-1] else kills // 2
            while True:
                before = killed.total()
                runs, code = runs + 1, _hit(project, command, chance, most, killed)
                if code == 0:
                    break
                undisturbed = undisturbed + 1 if killed.total() == before else 0
                if undisturbed > RUNS_AFTER:
                    problems.append(f"{' '.join(command)} ended with {code}, undisturbed")
                    break
        problems += _wrong(project, home, begin.reference, log) if not problems else []
    except NoEndError as error:
        problems.append(str(error))
    finally:
        end_processes(root)
    if problems:
        problems.append(log.read_text(encoding="utf-8", errors="replace")[-1500:])
    else:
        shutil.rmtree(root)
        shutil.rmtree(home)
        log.unlink()
    return Life(number, kills, dict(killed), runs, tuple(problems), time.monotonic() - started)


def _hit(project: Project, command: tuple[str, ...], chance: random.Random, kills: int, killed: Counter[str]) -> int:
    """Run a command, with kills as long as the life has had fewer than ``kills``; its exit code.

    Raises:
        NoEndError: if it does not end.
    """
    run = project.start(*command, log=project.root.parent / f"{project.root.name}.log")
    kinds, progress = [kind for kind in KINDS if kind != WORKER or "search" in command], Progress(run, DEADLINE)
    due, wanted = chance.uniform(*PAUSES), _rarer(chance, kinds, killed)
    try:
        while run.poll() is None:
            time.sleep(0.1)
            used = progress.check()
            if used < due or killed.total() >= kills:
                continue
            with suppress(ProcessLookupError, psutil.Error):  # it ended by itself just now
                found = _processes(run)
                if wanted in found and not (SEARCH in found and wanted != SERVER and fails_a_recipe(project.root)):
                    os.kill(chance.choice(found[wanted]), signal.SIGKILL)
                    killed[wanted] += 1
                elif used < due + PATIENCE:
                    continue  # there may be one soon
                due, wanted = used + chance.uniform(*PAUSES), _rarer(chance, kinds, killed)
    finally:
        run.kill()
    return run.wait()


def _rarer(chance: random.Random, kinds: list[str], killed: Counter[str]) -> str:
    """A kind to kill: the more of it were killed, the less likely."""
    return chance.choices(kinds, [1 / (1 + killed[kind]) for kind in kinds])[0]


def fails_a_recipe(root: Path) -> bool:
    """Whether one more kill of a search may be the third of a recipe, which then counts as failed: another outcome."""
    database = root / ".reft" / "optuna.db"
    if not database.is_file():
        return False
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True, timeout=10)) as db:
        try:
            states = dict(db.execute("select trial_id, state from trials").fetchall())
            numbers = dict(db.execute("select number, trial_id from trials").fetchall())
            said = db.execute("select trial_id, key, value_json from trial_user_attributes").fetchall()
        except sqlite3.OperationalError as error:
            return "no such table" not in str(error)  # which is not made yet; else it is just being written
    attributes: dict[int, dict[str, str]] = {trial: {} for trial in states}
    for trial, key, value in said:
        attributes.setdefault(trial, {})[key] = value
    former = {trial: numbers[int(own[RETRY_OF])] for trial, own in attributes.items() if RETRY_OF in own}

    def kills(trial: int) -> int:
        own = attributes[trial]
        killed = states[trial] == "FAIL" and not {ERROR, INTERRUPTED} & own.keys()
        return killed + (kills(former[trial]) if trial in former else 0)

    # A trial that is over and repeated is told by its repetition; any other may be at work, or about to be repeated.
    open_ones = [trial for trial in states if states[trial] not in ("COMPLETE", "PRUNED")]
    return any(kills(trial) + 1 >= MAX_KILLS for trial in open_ones if trial not in former.values())


def _processes(run: subprocess.Popen[bytes]) -> dict[str, list[int]]:
    """The processes of a run by what they are, and whether a search is among them."""
    found: dict[str, list[int]] = {"flow": [run.pid]}
    for child in psutil.Process(run.pid).children(recursive=True):
        words = words_of(child)
        if words[1 : 1 + len(QUIET)] == [*QUIET] or words[1:3] == ["-m", "dvc"]:
            kind = "dvc"
        elif words[1:3] == ["-m", "pipelines"]:
            kind = "stage"
        elif words[1:3] == ["-m", "pipelines.search.worker"]:
            kind = WORKER
        elif is_server(child):
            kind = SERVER
        else:
            continue
        found.setdefault(kind, []).append(child.pid)
        if kind == WORKER or words[3:4] == ["search"]:
            found.setdefault(SEARCH, []).append(child.pid)
    return found


def _wrong(project: Project, home: Path, reference: Facts, log: Path) -> Iterator[str]:
    """What is not as in an undisturbed project."""
    yield from differences(facts(project), reference)
    yield from (f"{' '.join(words_of(process)[:6])} works on" for process in _at_work(project.root))
    yield from (f"{path} was left" for path in leftovers(project.root))
    if UNTOLD not in log.read_text(encoding="utf-8", errors="replace"):
        yield from still_running(home)
    before = project.markers()
    again = project.run("reft", "run", check=False, timeout=DEADLINE)
    if again.returncode or project.ran_since(before):
        yield f"another run ended with {again.returncode} and did {sorted(project.ran_since(before))}"


def _at_work(root: Path) -> list[psutil.Process]:
    found = [process for process in psutil.process_iter(["cwd"]) if process.info["cwd"] == str(root)]
    return outliving(found, ORPHAN_SECONDS)


def lives(count: int, seed: int, begin: Born, folder: Path, record: Record) -> Iterator[Life]:
    """At least so many kills, over as many projects as they take; some of these side by side.

    Those that the record has are told from it.
    """
    number, done, share = 0, 0, min(KILLS_A_LIFE, count)

    def lived(place: int) -> Life:
        key = {"seed": seed, "number": place, "kills": share}
        known = record.find(key)
        if known is not None:
            del known["seed"]
            return Life(**{**known, "problems": tuple(known["problems"])})
        life = live(place, share, seed, begin, folder)
        record.add({"seed": seed, **asdict(life)})
        return life

    with ThreadPoolExecutor(SIDE_BY_SIDE) as pool:
        while done < count:
            lacking = -(-(count - done) // share)
            for life in pool.map(lived, range(number, number + min(lacking, SIDE_BY_SIDE))):
                done, number = done + life.total, number + 1
                yield life


def begin_or_go_on(folder: Path, record: Record) -> Born:
    """The project to copy, and what an undisturbed run leaves; that is found once for a record."""
    found = known_facts(record, "to be killed")
    if found is not None:
        return born(folder, found)
    begin = born(folder)
    kept_facts(begin.reference, record, "to be killed")
    return begin


def main() -> int:
    """Print a row for each project; the exit code is 1 when one is not as the undisturbed one."""
    count, seed = (int(word) for word in [*sys.argv[1:3], "100", "0"][:2])
    record = named_record()
    total, wrong, started = Counter[str](), 0, time.monotonic()
    print(
        f"| project | {' | '.join(KINDS)} | runs | outcome | seconds |\n|---|{'---|' * len(KINDS)}---|---|---|",
        flush=True,
    )
    with tempfile.TemporaryDirectory(prefix="reft-kills-") as name:
        folder = Path(name).resolve()
        for life in lives(count, seed, begin_or_go_on(folder, record), folder, record):
            said = "; ".join(life.problems) or "as if nobody had killed"
            counts = " | ".join(str(life.killed.get(kind, 0)) for kind in KINDS)
            print(f"| {life.number} | {counts} | {life.runs} | {said} | {life.seconds:.0f} |", flush=True)
            total, wrong = total + Counter(life.killed), wrong + bool(life.problems)
    each = ", ".join(f"{total[kind]} {kind}" for kind in KINDS)
    print(
        f"\n{total.total()} kills ({each}), {wrong} projects different, {time.monotonic() - started:.0f} s, seed {seed}"
    )
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
