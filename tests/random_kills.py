"""Kills at random moments of random processes, until a project has had so many; then it is let end.

``python -m tests.random_kills [COUNT] [SEED]`` prints a table. Unlike the kill matrix, a run is hit again and again, at
any moment: while it starts, between stages, while Prefect or DVC write their own notes. At the end the project holds
what one does that nobody killed, nothing works on, and no half-written file is left.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import psutil

from flows.runs.dvc import QUIET
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
    leftovers,
    make_environment,
    still_running,
    words_of,
)
from tests.project import Project

WORKER, SEARCH = "worker", "(search at work)"
KINDS = ("flow", "dvc", "stage", SERVER, WORKER)
KILLS_A_LIFE = 25
SIDE_BY_SIDE = 2
PAUSES = (0.0, 5.0)  # seconds between two kills of a life
PATIENCE = 8.0  # seconds in which a process of the kind that is to be killed may come
# A recipe whose process is killed three times counts as failed, which is another outcome than the undisturbed one.
SEARCH_KILLS = 2
RUNS_AFTER = 2  # a run that is hit as often as a stage may be tried again has failed; the next one must not


@dataclass(frozen=True)
class Life:
    """What befell a project: how often what was killed, how many runs it took, and what is wrong in the end."""

    number: int
    killed: Counter[str]
    runs: int
    problems: tuple[str, ...]
    seconds: float


def live(number: int, kills: int, seed: int, begin: Born, folder: Path) -> Life:
    """One life: in every other one a search of two workers, then whole runs, until one ends."""
    started, chance = time.monotonic(), random.Random(f"{seed}-{number}")
    home, root = folder / f"home-{number}", folder / f"life-{number}"
    shutil.copytree(begin.home, home, symlinks=True)
    shutil.copytree(begin.project, root, symlinks=True)
    project, killed, runs, problems = Project(root, make_environment(home)), Counter[str](), 0, []
    commands = [("reft", "search", "--workers", "2")] if number % 2 else []
    commands.append(("reft", "run"))
    try:
        for command in commands:
            undisturbed = 0
            while True:
                before = killed.total()
                runs, code = runs + 1, _hit(project, command, chance, kills, killed)
                if code == 0:
                    break
                undisturbed = undisturbed + 1 if killed.total() == before else 0
                if undisturbed > RUNS_AFTER:
                    said = (folder / f"life-{number}.log").read_text(encoding="utf-8", errors="replace")[-1500:]
                    problems.append(f"{' '.join(command)} ended with {code}, undisturbed: {said}")
                    break
        problems += _wrong(project, home, begin.reference) if not problems else []
    finally:
        end_processes(root)
    if not problems:
        shutil.rmtree(root)
        shutil.rmtree(home)
    return Life(number, killed, runs, tuple(problems), time.monotonic() - started)


def _hit(project: Project, command: tuple[str, ...], chance: random.Random, kills: int, killed: Counter[str]) -> int:
    """Run a command, with kills as long as the life has some left; its exit code."""
    run = project.start(*command, log=project.root.parent / f"{project.root.name}.log")
    kinds = [kind for kind in KINDS if kind != WORKER or "search" in command]
    until, due, wanted = time.monotonic() + DEADLINE, time.monotonic() + chance.uniform(*PAUSES), chance.choice(kinds)
    try:
        while run.poll() is None and time.monotonic() < until:
            time.sleep(0.05)
            if time.monotonic() < due or killed.total() - killed[SEARCH] >= kills:
                continue
            found = _processes(run)
            too_often = SEARCH in found and killed[SEARCH] >= SEARCH_KILLS
            if wanted in found and not too_often:
                os.kill(chance.choice(found[wanted]), signal.SIGKILL)
                killed[wanted] += 1
                killed[SEARCH] += SEARCH in found and wanted != SERVER
            elif time.monotonic() < due + PATIENCE:
                continue  # there may be one soon
            due, wanted = time.monotonic() + chance.uniform(*PAUSES), chance.choice(kinds)
    except (ProcessLookupError, psutil.Error):
        pass  # it ended by itself
    finally:
        if run.poll() is None and time.monotonic() >= until:
            run.kill()
        code = run.wait(timeout=DEADLINE)
    return code


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


def _wrong(project: Project, home: Path, reference: Facts) -> Iterator[str]:
    """What is not as in an undisturbed project."""
    yield from differences(facts(project), reference)
    until = time.monotonic() + ORPHAN_SECONDS
    while time.monotonic() < until and _at_work(project.root):
        time.sleep(0.2)
    yield from (f"{' '.join(words_of(process)[:6])} works on" for process in _at_work(project.root))
    yield from (f"{path} was left" for path in leftovers(project.root))
    yield from still_running(home)
    before = project.markers()
    again = project.run("reft", "run", check=False, timeout=DEADLINE)
    if again.returncode or project.ran_since(before):
        yield f"another run ended with {again.returncode} and did {sorted(project.ran_since(before))}"


def _at_work(root: Path) -> list[psutil.Process]:
    return [process for process in psutil.process_iter(["cwd"]) if process.info["cwd"] == str(root)]


def lives(count: int, seed: int, begin: Born, folder: Path) -> Iterator[Life]:
    """At least so many kills, over as many projects as they take; some of these side by side."""
    number, done = 0, 0
    with ThreadPoolExecutor(SIDE_BY_SIDE) as pool:
        while done < count:
            share = min(KILLS_A_LIFE, -(-(count - done) // SIDE_BY_SIDE))
            places = range(number, number + SIDE_BY_SIDE)
            for life in pool.map(lambda place, share=share: live(place, share, seed, begin, folder), places):
                done += sum(life.killed[kind] for kind in KINDS)
                yield life
            number += SIDE_BY_SIDE


def main() -> int:
    """Print a row for each project; the exit code is 1 when one is not as the undisturbed one."""
    count, seed = (int(word) for word in [*sys.argv[1:], "100", "0"][:2])
    total, wrong, started = Counter[str](), 0, time.monotonic()
    print(
        f"| project | {' | '.join(KINDS)} | runs | outcome | seconds |\n|---|{'---|' * len(KINDS)}---|---|---|",
        flush=True,
    )
    with tempfile.TemporaryDirectory(prefix="reft-kills-") as name:
        folder = Path(name).resolve()
        for life in lives(count, seed, born(folder), folder):
            said = "; ".join(life.problems) or "as if nobody had killed"
            counts = " | ".join(str(life.killed[kind]) for kind in KINDS)
            print(f"| {life.number} | {counts} | {life.runs} | {said} | {life.seconds:.0f} |", flush=True)
            total, wrong = total + life.killed, wrong + bool(life.problems)
    kills = sum(total[kind] for kind in KINDS)
    print(f"\n{kills} kills, {wrong} projects different, {time.monotonic() - started:.0f} s, seed {seed}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
