"""A sound project that every stage has run in, copies of it, and a quick way to run a stage in one."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import re
import shutil
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from multiprocessing.context import ForkServerContext
from pathlib import Path

from pipelines.project.graph import read_graph
from tests.bad_inputs.case import BadInput
from tests.project import ROOT, TINY, Project, environment, write_own_files

STAGES = ("base", "prepare", "search", "train", "evaluate", "register")
PRELOADED = [
    "tests.bad_inputs",
    "pipelines.__main__",
    "pipelines.bases.convert",
    *(f"pipelines.stages.{stage}" for stage in STAGES),
]
SECONDS = 900.0  # a hang, also on a machine with much else to do


@dataclass(frozen=True)
class Answer:
    """How a command ended: its exit code, all that it printed, and of that the message."""

    code: int
    printed: str

    @property
    def message(self) -> str:
        """What follows "error:", or all that was printed."""
        return re.split("^error: ", self.printed, flags=re.MULTILINE)[-1].strip()


class Sound:
    """Makes the project once; stages start in a few milliseconds from a process that has imported what they need."""

    def __init__(self, folder: Path) -> None:
        """Run the stages in ``folder``/sound."""
        self.folder = folder
        self._context: ForkServerContext = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(PRELOADED)
        self.project = self._make(folder / "sound")
        for stage in STAGES:
            done = self.stage(self.project, stage)
            if done.code != 0:
                raise AssertionError(f"{stage} ended with {done.code}\n{done.printed}")

    def copy(self, name: str) -> Project:
        """A copy of the project and of its stores, to be spoilt."""
        root = self.folder / name
        shutil.copytree(self.folder / "sound", root, symlinks=True)
        return Project(root / "project", environment(root / "home") | {"OMP_NUM_THREADS": "1"})

    def try_case(self, case: BadInput, name: str) -> tuple[Answer, list[str]]:
        """Spoil a copy, run the case in it, and return how it ended and all that is wrong with that."""
        project = self.copy(name)
        case.spoil(project)
        before = kept(project)
        answer = self.answer(case, project)
        after = kept(project)
        lost = sorted(name for name, digest in before.items() if after.get(name) != digest)
        checks = {
            f"the exit code must be {case.code}": answer.code == case.code,
            "there must be no traceback": "Traceback" not in answer.printed,
            "the project's files must be as before": not lost,
            "nothing half-written may be left": not list(project.root.rglob(".*.tmp-*")),
            **{f"the message must say {part!r}": part in answer.message for part in (case.rule, case.got, case.do)},
        }
        wrong = [rule for rule, holds in checks.items() if not holds]
        shutil.rmtree(project.root.parent)
        return answer, [*wrong, f"lost: {lost}" if lost else "", answer.printed] if wrong else []

    def answer(self, case: BadInput, project: Project) -> Answer:
        """Run the case's stage or command in the project."""
        if not case.run.startswith("reft "):
            return self.stage(project, case.run, case.inside)
        done = project.run(*case.run.split(), check=False, timeout=SECONDS)
        return Answer(done.returncode, done.stdout + done.stderr)

    def stage(self, project: Project, stage: str, inside: Callable[[], None] | None = None) -> Answer:
        """Run ``python -m pipelines STAGE`` as dvc.yaml has it, but for the start of Python."""
        said = project.root.parent / f"{stage}.txt"
        words = read_graph(ROOT).stage(stage).cmd.split()[3:]
        process = self._context.Process(target=_enter, args=(words, project.root, project.env, said, inside))
        process.start()
        process.join(SECONDS)
        if process.exitcode is None:
            process.kill()
            raise AssertionError(f"{stage} did not end in {SECONDS} s\n{said.read_text(encoding='utf-8')}")
        return Answer(process.exitcode, said.read_text(encoding="utf-8", errors="replace"))

    def _make(self, folder: Path) -> Project:
        root, home = folder / "project", folder / "home"
        for name in ("params.yaml", "dvc.yaml", ".dvc/config", ".dvcignore"):
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, root / name)
        home.mkdir()
        (root / "data" / "own").mkdir(parents=True)
        project = Project(root, environment(home) | {"OMP_NUM_THREADS": "1"})
        project.params(TINY | {"search.trials": 1, "train.epochs": 1, "evaluate.bootstrap": 100})
        write_own_files(root)
        project.run("git", "init", "--quiet")
        return project


def kept(project: Project) -> dict[str, str]:
    """The hash of every file of a project that a mistake must not touch: all but the work in progress."""
    files = (path for path in project.root.rglob("*") if path.is_file() and not path.is_symlink())
    return {
        str(path.relative_to(project.root)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files
        if path.relative_to(project.root).parts[0] not in (".reft", ".git", ".dvc")
    }


def _enter(words: list[str], root: Path, env: Mapping[str, str], said: Path, inside: Callable[[], None] | None) -> None:
    """Become the stage's process: its folder, its environment, its output; then run it."""
    os.chdir(root)
    os.environ.clear()
    os.environ.update(env)
    file = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(file, 1)
    os.dup2(file, 2)
    if inside is not None:
        inside()
    from pipelines.__main__ import main

    sys.exit(main(words))
