"""A finished project that is damaged, run again, looked at, and put back as it was, over and over."""

from __future__ import annotations

import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from tests.damage.cases import Damage
from tests.kills import DEADLINE, differences, end_processes, facts, make_environment
from tests.progress import NoEndError
from tests.project import Project, make_tiny_project
from tests.record import Record
from tests.shared import made_once

Outcome = Literal["mended", "refused", "harmless", "WRONG"]
# What a user's mistake or a damaged file is told as: a rule, the value, what to do.
ADVICE = re.compile(r"^error: (.+\. Got: .+\. .+|\S+ breaks \d+ rule\(s\))", re.MULTILINE)
TRACEBACK = "Traceback (most recent call last)"


@dataclass(frozen=True)
class Answer:
    """What became of a damage: the outcome, what was said, and for a wrong one why."""

    outcome: Outcome
    said: str
    problems: tuple[str, ...]
    seconds: float


def known(record: Record, damage: Damage) -> Answer | None:
    """The right answer that the record has to a damage; None if it has none."""
    found = record.find({"damage": damage.name, "problems": []})
    return None if found is None else Answer(found["outcome"], found["said"], (), found["seconds"])


def finished() -> Path:
    """A folder with a tiny project that has run and its home, to copy; a run in the copy has its stores follow it."""

    def finish(folder: Path) -> None:
        project = make_tiny_project(folder / "project", folder / "home")
        Project(project.root, make_environment(folder / "home")).run("reft", "run", timeout=DEADLINE)

    return made_once("finished", finish)


class FinishedProject:
    """A project after a whole run, with its own home, and a copy of both to be put back.

    Args:
        folder: for both.
    """

    def __init__(self, folder: Path) -> None:
        self._work, self._saved = folder / "work", folder / "saved"
        shutil.copytree(finished(), self._work, symlinks=True)
        self._project = Project(self._work / "project", make_environment(self._work / "home"))
        self._project.run("reft", "run", timeout=DEADLINE)  # nothing is stale; its store follows it to this folder
        self._facts = facts(self._project)
        shutil.copytree(self._work, self._saved, symlinks=True)

    def answer_to(self, damage: Damage, record: Record) -> Answer:
        """The answer to a damage, which the record is told."""
        answer = self.suffer(damage)
        record.add({"damage": damage.name, **asdict(answer)})
        return answer

    def suffer(self, damage: Damage) -> Answer:
        """Damage, run, look, and put everything back."""
        try:
            damage.hurt(self._find(self._work, damage.path))
        except (AssertionError, OSError) as error:
            self.put_back()
            return Answer("WRONG", "", (f"it could not be done: {error}",), 0.0)
        before, started = self._project.markers(), time.monotonic()
        try:
            done = self._project.run(*damage.command, check=False, timeout=DEADLINE)
            seconds, said = time.monotonic() - started, _said(done)
            problems = tuple(self._problems(damage, done))
            # What must be as it was and is, was mended, if by DVC's cache alone.
            noticed = damage.same_bytes or bool(said) or bool(self._project.ran_since(before))
        except NoEndError as error:
            return Answer("WRONG", "", (str(error),), time.monotonic() - started)
        finally:
            end_processes(self._project.root)
            self.put_back()
        right: Outcome = "refused" if done.returncode else "mended" if noticed else "harmless"
        return Answer("WRONG" if problems else right, said, problems, seconds)

    def put_back(self) -> None:
        """Make everything as it was after the whole run."""
        shutil.rmtree(self._work)
        shutil.copytree(self._saved, self._work, symlinks=True)

    def _find(self, folder: Path, path: str) -> Path:
        where = path if path.startswith("home") else f"project/{path}"
        if "*" not in where:
            return folder / where
        found = sorted(folder.glob(where))
        assert found, f"nothing is at {path}"
        return found[-1]

    def _problems(self, damage: Damage, done: subprocess.CompletedProcess[str]) -> Iterator[str]:
        printed = done.stdout + done.stderr
        if TRACEBACK in printed:
            yield f"a raw traceback: {printed[-600:]}"
        if done.returncode:
            if not ADVICE.search(done.stderr):
                yield f"exit code {done.returncode} without rule, value and advice: {printed[-400:]}"
            elif "Prefect must" in done.stderr:
                yield f"it was not refused for the damage: {printed[-400:]}"
            return
        try:
            found = facts(self._project)
            bytes_now = _content(self._find(self._work, damage.path)) if damage.same_bytes else {}
        except Exception as error:  # noqa: BLE001  whatever it is, it is the answer
            yield f"the project cannot be read: {type(error).__name__}: {error}"
            return
        yield from differences(found, self._facts)
        if damage.same_bytes and bytes_now != _content(self._find(self._saved, damage.path)):
            yield f"{damage.path} is still damaged"


def _content(path: Path) -> dict[str, bytes]:
    if path.is_file():
        return {"": path.read_bytes()}
    return {file.relative_to(path).as_posix(): file.read_bytes() for file in sorted(path.rglob("*")) if file.is_file()}


def _said(done: subprocess.CompletedProcess[str]) -> str:
    """The error, or the warnings."""
    lines = [re.sub(r"\x1b\[[0-9;]*m", "", line).strip() for line in done.stderr.splitlines()]
    kinds = ("error: ",) if done.returncode else ("warning: ", "WARNING ")
    found = [line for line in lines if line.startswith(kinds) and "not committed" not in line]
    return "; ".join(dict.fromkeys(found))
