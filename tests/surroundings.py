"""What a machine may be like, tried with whole runs: stopped and ended processes, homes, paths, other users' folders.

``python -m tests.surroundings [WORD]`` prints a row for each (with the word); with a file named by ``REFT_RECORD`` a
command that was stopped goes on with what it lacks. In the first kind a run must leave what
one leaves that nothing befell; in the second it must be refused before any stage, with the rule, the value and
what to do.
"""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

import psutil

from tests.damage.finished import ADVICE, TRACEBACK, finished
from tests.kills import (
    DEADLINE,
    Facts,
    differences,
    end_processes,
    facts,
    in_the_middle,
    kept_facts,
    known_facts,
    leftovers,
    make_environment,
)
from tests.progress import Progress, outliving, wait
from tests.project import Project, make_tiny_project
from tests.record import Record, named_record

Want = Literal["as ever", "refused"]
SIDE_BY_SIDE = 2
PAUSE = 60.0  # seconds that a run is stopped for
NOBODY = "nobody"
HOMES = ("HOME", "REFT_HOME", "PREFECT_HOME")


@dataclass(frozen=True)
class Surroundings:
    """Something that a run may meet.

    Attributes:
        name: of the row.
        want: what must become of the run.
        place: the project's path below the folder of the trial.
        through: a link to the project by which the run comes to it.
        change: what is done to the project and its home before the run.
        env: changes to the environment; None removes a variable. ``{folder}`` stands for the trial's folder.
        befall: what happens while the run trains; it returns when the process has ended.
        user: who runs it, where this process may choose.
    """

    name: str
    want: Want = "as ever"
    place: str = "project"
    through: str | None = None
    change: Callable[[Path, Path], None] = lambda root, home: None
    env: Mapping[str, str | None] = field(default_factory=dict)
    befall: Callable[[subprocess.Popen[bytes]], None] | None = None
    user: str | None = None


@dataclass(frozen=True)
class Answer:
    """What became of a run: its exit code, what it said at its end, and what is wrong with that."""

    code: int
    said: str
    problems: tuple[str, ...]
    seconds: float


def _everything_below(process: subprocess.Popen[bytes]) -> list[psutil.Process]:
    flow = psutil.Process(process.pid)
    return [flow, *flow.children(recursive=True)]


def _stop_for_a_minute(process: subprocess.Popen[bytes]) -> None:
    """As a laptop sleeps, or a batch system suspends: all of it at once."""
    stopped = _everything_below(process)
    for one in stopped:
        one.suspend()
    time.sleep(PAUSE)
    for one in reversed(stopped):
        one.resume()
    wait(process, DEADLINE)


def _terminate(process: subprocess.Popen[bytes]) -> None:
    """As a service manager does, and as long as it waits before it kills."""
    below = _everything_below(process)
    os.killpg(process.pid, signal.SIGTERM)
    assert process.wait(timeout=90) == 128 + signal.SIGTERM
    assert outliving(below, 30) == []


def _foreign(name: str, mode: int) -> Callable[[Path, Path], None]:
    """Give what is there to root, so that others may do what ``mode`` says."""

    def change(root: Path, home: Path) -> None:
        place = home / name.removeprefix("home/") if name.startswith("home/") else root / name
        place.mkdir(parents=True, exist_ok=True)
        for path in [place, *place.rglob("*")]:
            os.chown(path, 0, 0, follow_symlinks=False)
            if not path.is_symlink():
                path.chmod(mode if path.is_dir() else mode & 0o666)

    return change


def _filled(root: Path, home: Path) -> None:
    """The base is in the store, which belongs to somebody else who lets others read."""
    owner = root.stat()
    Project(root, make_environment(home)).run("dvc", "repro", "base", timeout=DEADLINE)
    for path in [root, *root.rglob("*")]:
        os.chown(path, owner.st_uid, owner.st_gid, follow_symlinks=False)
    _foreign("home/reft", READABLE)(root, home)


READABLE, CLOSED = 0o755, 0o700

ALL = (
    Surroundings("stopped for a minute, then let go on (SIGSTOP)", befall=_stop_for_a_minute),
    Surroundings("ended in the middle (SIGTERM), then run again", befall=_terminate),
    Surroundings("HOME is not set", env={"HOME": None}),
    Surroundings("TMPDIR on another file system", env={"TMPDIR": "{shm}"}),
    Surroundings("a project behind a symbolic link", through="linked"),
    Surroundings("a path with spaces and quotes", place='of two\'s "own"/a project'),
    Surroundings("a path that is not ASCII", place="Übung/проект 微调"),
    Surroundings("a path with signs of addresses", place="50%25 #1 & more;"),
    Surroundings("a path with a question mark", "refused", place="what?/project"),
    Surroundings("another user's project, to be read", "refused", user=NOBODY, change=_foreign(".", READABLE)),
    Surroundings("a registry's folder to be read", "refused", user=NOBODY, change=_foreign("mlflow", READABLE)),
    Surroundings("a registry's folder that is closed", "refused", user=NOBODY, change=_foreign("mlflow", CLOSED)),
    Surroundings("a store of bases that is closed", "refused", user=NOBODY, change=_foreign("home/reft", CLOSED)),
    Surroundings("a store of bases to be read, with the base", user=NOBODY, change=_filled),
    Surroundings("the same without it", "refused", user=NOBODY, change=_foreign("home/reft", READABLE)),
    Surroundings("a user who has no home", "refused", user=NOBODY, env=dict.fromkeys(HOMES)),
)


def known(record: Record, surroundings: Surroundings) -> Answer | None:
    """The right answer that the record has to surroundings; None if it has none."""
    found = record.find({"surroundings": surroundings.name, "problems": []})
    return None if found is None else Answer(found["code"], found["said"], (), found["seconds"])


def reference(record: Record) -> Facts:
    """What a run holds that nothing befell."""
    found = known_facts(record, "finished")
    return found or kept_facts(facts(Project(finished() / "project", {})), record, "finished")


def why_not(surroundings: Surroundings) -> str | None:
    """Why this cannot be tried here; None if it can."""
    if surroundings.user is None:
        return None
    if os.geteuid() != 0:
        return "only root can work as somebody else"
    try:
        who = pwd.getpwnam(surroundings.user)
    except KeyError:
        return f"there is no user {surroundings.user}"
    command = [sys.executable, "-c", "import torch"]
    try:
        subprocess.run(command, user=who.pw_uid, group=who.pw_gid, extra_groups=[], capture_output=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return f"{surroundings.user} may not read this Python"
    closed = [folder for folder in Path(tempfile.gettempdir()).resolve().parents if not folder.stat().st_mode & 0o001]
    return f"others may not look into {closed[0]}" if closed else None


def tried(surroundings: Surroundings, folder: Path, expected: Facts, record: Record) -> Answer:
    """Run a fresh tiny project in these surroundings, unless the record has the right answer; it is told the answer."""
    answer = known(record, surroundings)
    if answer is None:
        answer = _tried(surroundings, folder, expected)
        record.add({"surroundings": surroundings.name, **asdict(answer)})
    return answer


def _tried(surroundings: Surroundings, folder: Path, expected: Facts) -> Answer:
    started = time.monotonic()
    root, home = folder / surroundings.place, folder / "home"
    root.parent.mkdir(parents=True, exist_ok=True)
    make_tiny_project(root, home)
    with tempfile.TemporaryDirectory(prefix="reft-", dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as shm:
        env: dict[str, str] = make_environment(home)
        for name, value in surroundings.env.items():
            if value is None:
                env.pop(name, None)
            else:
                env[name] = value.format(shm=shm)
        identity = _hand_over(folder, surroundings)
        surroundings.change(root, home)
        if surroundings.through is not None:
            (folder / surroundings.through).symlink_to(root, target_is_directory=True)
        log = folder / "run.log"
        try:
            code = _run(
                Project(folder / (surroundings.through or surroundings.place), env), surroundings, log, identity
            )
            problems = tuple(_problems(surroundings, code, log, Project(root, make_environment(home)), expected))
        except AssertionError as error:
            code, problems = -1, (str(error),)
        finally:
            end_processes(root)
    said = [
        line for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.startswith("error: ")
    ]
    return Answer(code, said[-1] if said else "", problems, time.monotonic() - started)


def _hand_over(folder: Path, surroundings: Surroundings) -> dict[str, object]:
    """Give all of the trial to its user; return how a process of theirs is started."""
    if surroundings.user is None:
        return {}
    who = pwd.getpwnam(surroundings.user)
    for path in [folder, *folder.rglob("*")]:
        os.chown(path, who.pw_uid, who.pw_gid, follow_symlinks=False)
    return {"user": who.pw_uid, "group": who.pw_gid, "extra_groups": []}


def _run(project: Project, surroundings: Surroundings, log: Path, identity: dict[str, object]) -> int:
    """Start ``reft run``, let befall it what does, run again what was ended, and return the exit code."""
    for _ in range(2):
        with log.open("wb") as file:
            process = subprocess.Popen(
                project.command("reft", "run"), cwd=project.root, env=project.env | {"PWD": str(project.root)},
                stdout=file, stderr=file, start_new_session=True, **identity,  # type: ignore[call-overload]
            )  # fmt: skip
        try:
            if surroundings.befall is not None:
                _wait_until(in_the_middle(project, "train"), process)
                surroundings.befall(process)
            wait(process, DEADLINE)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        if process.returncode != 128 + signal.SIGTERM:
            break
        surroundings = Surroundings(surroundings.name)
    return int(process.returncode)


def _wait_until(ready: Callable[[], bool], process: subprocess.Popen[bytes]) -> None:
    progress = Progress(process, DEADLINE)
    while not ready():
        assert process.poll() is None, f"the run ended with {process.returncode} before it trained"
        progress.check()
        time.sleep(0.02)


def _problems(surroundings: Surroundings, code: int, log: Path, project: Project, expected: Facts) -> Iterator[str]:
    printed = log.read_text(encoding="utf-8", errors="replace")
    if TRACEBACK in printed:
        yield f"a raw traceback: {printed[-600:]}"
    if code not in (0, 2):
        yield f"exit code {code}: {printed[-600:]}"
    elif code == 2 and surroundings.want == "as ever":
        yield f"it was refused: {printed[-600:]}"
    elif code == 2 and not ADVICE.search(printed):
        yield f"no rule, value and advice: {printed[-600:]}"
    elif code == 2 and surroundings.want == "refused" and project.markers():
        yield f"stages ran before it was refused: {sorted(project.markers())}"
    elif code == 0 and surroundings.want == "refused":
        yield "it was not refused"
    elif code == 0:
        yield from differences(facts(project), expected)
    yield from (f"{path} was left" for path in leftovers(project.root))


def main() -> int:
    """Try each, some at a time, and print a row for each; 1 if one is wrong."""
    chosen = [one for one in ALL if all(word in one.name for word in sys.argv[1:])]
    with tempfile.TemporaryDirectory(prefix="reft-surroundings-") as name:
        folder = Path(name).resolve()
        record = named_record()
        expected = reference(record)
        print("| surroundings | must be | exit | what was said | seconds |\n|---|---|---|---|---|", flush=True)

        def row(number: int) -> bool:
            one = chosen[number]
            reason = why_not(one)
            if reason is not None:
                print(f"| {one.name} | {one.want} | not tried | {reason} | |", flush=True)
                return True
            own = folder / str(number)
            own.mkdir()
            answer = tried(one, own, expected, record)
            said = " ".join("; ".join(answer.problems or (answer.said,)).replace(name, "").split()).replace("|", "\\|")
            wrong = "WRONG: " if answer.problems else ""
            print(
                f"| {one.name} | {one.want} | {answer.code} | {wrong}{said[:600]} | {answer.seconds:.0f} |", flush=True
            )
            shutil.rmtree(own, ignore_errors=True)
            return not answer.problems

        folder.chmod(0o711)  # each trial's own folder is its user's
        with ThreadPoolExecutor(SIDE_BY_SIDE) as pool:
            right = list(pool.map(row, range(len(chosen))))
    print(f"\n{sum(right)} of {len(right)} are right or could not be tried")
    return 0 if all(right) else 1


if __name__ == "__main__":
    sys.exit(main())
