"""A copy of this project in a folder of its own, as a user has it after a clone, with a smaller job."""

from __future__ import annotations

import csv
import itertools
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from tests.progress import communicate
from tests.shared import made_once
from tests.tiny import write_tiny_base

ROOT = Path(__file__).parent.parent

SMALL: dict[str, Any] = {
    "run.threads": 1,  # two files of tests run side by side
    "prepare.train_rows": 64,
    "prepare.validation_rows": 32,
    "prepare.test_rows": 48,
    "search.trials": 2,
    "search.train_rows": 32,
    "search.reports": 2,
    "search.space.layers": ["upper-third"],
    "search.space.positions": ["l1", "l4"],
    "search.space.rank": [2, 4],
    "search.enqueue": [{"layers": "upper-third", "positions": "l4", "rank": 4, "learning_rate": 0.004}],
    "train.epochs": 2,
    "train.checkpoint_every": 2,
    "evaluate.bootstrap": 500,
}

TINY: dict[str, Any] = {
    **SMALL,
    "base.source": "file:models/own/tiny",
    "base.sha256": None,
    "prepare.source": "file:data/own/reviews.csv",
    "prepare.sha256": None,
    "prepare.format": "csv",
    "prepare.columns": None,
    "prepare.quoting": True,
    "prepare.template": "Review: {text}\nSentiment:",
    "prepare.label_column": "label",
    "prepare.labels": {
        "negative": {"word": " negative", "min": None, "max": None, "values": ["bad"]},
        "positive": {"word": " positive", "min": None, "max": None, "values": ["good"]},
    },
    "prepare.max_tokens": 96,
    "search.space.learning_rate": {"low": 1e-3, "high": 1e-1, "log": True},
    "search.enqueue": [{"layers": "upper-third", "positions": "l4", "rank": 4, "learning_rate": 0.02}],
    "run.threads": 1,
}


@dataclass
class Project:
    """A project folder and the environment that its commands run in."""

    root: Path
    env: dict[str, str] = field(repr=False)

    def run(
        self, *command: str, check: bool = True, timeout: float = 600, **env: str
    ) -> subprocess.CompletedProcess[str]:
        """Run a command of the environment (reft, dvc, mlflow, python, git) in the folder.

        ``timeout`` is in seconds of the processor, or of the clock where nothing goes on: see :mod:`tests.progress`.
        """
        words = self.command(*command)
        process = subprocess.Popen(
            words, cwd=self.root, env=self.env | env, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        with process:
            try:
                output, errors = communicate(process, timeout)
            except BaseException:
                process.kill()
                raise
        done = subprocess.CompletedProcess(words, process.returncode, output, errors)
        if check and done.returncode != 0:
            raise AssertionError(f"{command} ended with {done.returncode}\n{done.stdout}\n{done.stderr}")
        return done

    def start(self, *command: str, log: Path, **env: str) -> subprocess.Popen[bytes]:
        """Start a command in a session of its own; what it says goes to ``log``."""
        with log.open("ab") as file:
            return subprocess.Popen(
                self.command(*command),
                cwd=self.root, env=self.env | env, stdout=file, stderr=file, start_new_session=True,
            )  # fmt: skip

    def command(self, *command: str) -> list[str]:
        """The command by its full path: the tests' own environment need not be activated."""
        program = Path(sys.executable).parent / command[0]
        return [str(program) if program.exists() else command[0], *command[1:]]

    def params(self, changes: Mapping[str, Any]) -> None:
        """Change keys of params.yaml."""
        path = self.root / "params.yaml"
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
        for key, value in changes.items():
            *parents, last = key.split(".")
            found = raw
            for part in parents:
                found = found[part]
            found[last] = value
        path.write_text(yaml.safe_dump(raw, sort_keys=False), encoding="utf-8")

    def markers(self) -> dict[str, str]:
        """What each stage left when it last ran."""
        folder = self.root / ".reft" / "stages"
        return {path.stem: path.read_text(encoding="utf-8") for path in sorted(folder.glob("*.json"))}

    def ran_since(self, before: Mapping[str, str]) -> set[str]:
        """The stages that ran since :meth:`markers` was called."""
        return {stage for stage, marker in self.markers().items() if before.get(stage) != marker}


def environment(home: Path) -> dict[str, str]:
    """This process's environment with every store in a folder of the tests' own.

    Bytecode is kept, as a user's Python keeps it: without, each process compiles the project's code anew.
    """
    foreign = ("PREFECT_", "MLFLOW_", "DVC_", "PYTHONDONTWRITEBYTECODE")
    env = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
    folder = str(Path(sys.executable).parent)
    return env | {
        "REFT_HOME": str(home / "reft"),
        "PREFECT_HOME": str(home / "prefect"),
        "HOME": str(home),
        "GIT_CONFIG_GLOBAL": str(home / "gitconfig"),
        "PATH": f"{folder}{os.pathsep}{env['PATH']}",
        "PYTHONPATH": "",
        "NO_COLOR": "1",
        "COLUMNS": "160",
    }


def prefect_home() -> Path:
    """A PREFECT_HOME to copy, with an empty database: all its migrations cost a new one ten seconds."""

    def make(folder: Path) -> None:
        project = Project(folder, environment(folder) | {"PREFECT_HOME": str(folder)})
        project.run("prefect", "server", "database", "upgrade", "--yes")

    return made_once("prefect", make)


def make_project(
    root: Path, home: Path, changes: Mapping[str, Any], *, fill: Callable[[Path], None] | None = None
) -> Project:
    """Copy what git tracks (and what it would) into ``root``, make it a repository, and change params.yaml.

    ``fill`` may put files of the user's own into the folder; what it puts under data/own and models/own goes under DVC.
    """
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        text=True,
        capture_output=True,
        check=True,
    )
    for name in listed.stdout.splitlines():
        if not (ROOT / name).is_file() or name == "dvc.lock" or name.startswith("metrics/"):
            continue  # the state of a run is not part of the job
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, root / name)
    project = Project(root, environment(home))
    shutil.copytree(prefect_home(), home / "prefect", dirs_exist_ok=True)
    (home / "gitconfig").write_text(
        "[user]\n\tname = Test\n\temail = test@example.org\n[init]\n\tdefaultBranch = main\n[safe]\n\tdirectory = *\n",
        encoding="utf-8",
    )
    project.params(changes)
    if fill is not None:
        fill(root)
    project.run("git", "init", "--quiet")
    project.run("git", "add", "--all")
    project.run("git", "commit", "--quiet", "--message", "A project")
    project.run("reft", "setup")
    return project


def make_tiny_project(root: Path, home: Path, changes: Mapping[str, Any] | None = None) -> Project:
    """A project whose whole pipeline takes seconds: a model of some kilobytes and 200 rows, both under DVC.

    The label of a row is the tone of its adjectives, so there is something to learn.
    """
    template = made_once("tiny", _make_tiny_template)
    shutil.copytree(template / "project", root, symlinks=True)
    shutil.copytree(template / "home", home, symlinks=True, dirs_exist_ok=True)
    project = Project(root, environment(home))
    if changes:
        project.params(changes)
        project.run("git", "commit", "--quiet", "--all", "--message", "Other parameters")
    return project


def _make_tiny_template(folder: Path) -> None:
    """A tiny project and its home; every path in them is relative."""
    project = make_project(folder / "project", folder / "home", TINY, fill=write_own_files)
    project.run("dvc", "add", "data/own/reviews.csv", "models/own/tiny")
    project.run("git", "add", "--all")
    project.run("git", "commit", "--quiet", "--message", "Own data and model")


def write_own_files(root: Path) -> None:
    """Put the tiny model and its rows where a user would."""
    write_tiny_base(root / "models" / "own" / "tiny")
    with (root / "data" / "own" / "reviews.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "label"])
        writer.writerows(review_rows())


def review_rows(count: int = 200) -> list[tuple[str, str]]:
    """Distinct (text, label) rows, labels by turns."""
    words = {"good": ["good", "warm", "bright", "lovely"], "bad": ["bad", "cold", "dull", "awful"]}
    nouns = ["film", "plot", "cast", "song", "scene"]
    rows = [
        (f"The {one} is {adjectives[place]}, the {other} is {adjectives[(place + 1) % 4]}.", label)
        for one, other, place in itertools.product(nouns, nouns, range(4))
        for label, adjectives in words.items()
    ]
    return rows[:count]
