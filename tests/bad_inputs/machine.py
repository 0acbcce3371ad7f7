"""What is around a project: stores, disk, git, DVC."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from tests.bad_inputs.case import BadInput, params
from tests.project import Project

NOWHERE = "http://127.0.0.1:9"
SECRET = "postgresql://me:hunter2@127.0.0.1:9/trials"
SILENT = "postgresql://me@127.0.0.1:9/trials"
START = "Start it or repair it, or set"


class Usage(NamedTuple):
    """What shutil.disk_usage returns."""

    total: int
    used: int
    free: int


def full_disk() -> None:
    """Let every disk have a thousand bytes left."""
    shutil.disk_usage = lambda path: Usage(10**9, 10**9 - 1000, 1000)  # type: ignore[assignment]


def small_files() -> None:
    """Let the system refuse files of more than 4 kB, as a full disk does in the middle of the work."""
    import resource

    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))


def no_database(name: str, **changes: Any) -> Callable[[Project], None]:
    """Spoil by a file of another kind where a database should be."""

    def spoil(project: Project) -> None:
        (project.root / name).write_bytes(b"not a database, but long enough to be looked into" * 100)
        params(**changes)(project)

    return spoil


def without(*names: str) -> Callable[[Project], None]:
    """Spoil by taking files and folders away."""

    def spoil(project: Project) -> None:
        for name in names:
            path = project.root / name
            shutil.rmtree(path) if path.is_dir() else path.unlink()

    return spoil


def nobody(project: Project) -> None:
    """Git does not know who commits."""
    project.env.update(GIT_CONFIG_GLOBAL="/dev/null", GIT_CONFIG_SYSTEM="/dev/null", EMAIL="")
    (project.root / ".git" / "config").write_text("[user]\n\tuseConfigOnly = true\n", encoding="utf-8")


def home_is_a_file(project: Project) -> None:
    """REFT_HOME is a file."""
    home = Path(project.env["REFT_HOME"])
    shutil.rmtree(home)
    home.write_text("", encoding="utf-8")


def _case(
    name: str,
    run: str,
    spoil: Callable[[Project], None],
    rule: str,
    got: str,
    do: str,
    inside: Callable[[], None] | None = None,
    code: int = 2,
) -> BadInput:
    return BadInput(f"machine: {name}", run, spoil, rule, got, do, inside, code)


MACHINE = (
    _case("MLflow server that does not answer", "register", params(tracking__uri=NOWHERE),
          "the tracking store must answer", NOWHERE, f"{START} tracking.uri"),
    _case("MLflow server that does not answer, before any stage", "reft run", params(tracking__uri=NOWHERE),
          "the tracking store must answer", NOWHERE, f"{START} tracking.uri"),
    _case("MLflow database that is none", "reft run", no_database("m.db", tracking__uri="sqlite:///m.db"),
          "the tracking store must answer", "file is not a database", f"{START} tracking.uri"),
    _case("database of trials that does not answer", "search", params(search__storage=SILENT),
          "search.storage must answer", "postgresql://127.0.0.1:9/trials", f"{START} search.storage"),
    _case("database of trials that does not answer, before any stage", "reft run", params(search__storage=SILENT),
          "search.storage must answer", "postgresql://127.0.0.1:9/trials", f"{START} search.storage"),
    _case("password in the address of trials", "search", params(search__storage=SECRET),
          "search.storage: an address must not hold a password", "postgresql://***@127.0.0.1:9/trials", "~/.pgpass"),
    _case("password in the address of the store", "reft run", params(tracking__uri="http://me:hunter2@127.0.0.1:9"),
          "tracking.uri: an address must not hold a user or password", "got http://***@127.0.0.1:9",
          "MLFLOW_TRACKING_PASSWORD"),
    _case("database of trials that is none", "search", no_database("t.db", search__storage="sqlite:///t.db"),
          "search.storage must answer", "file is not a database", f"{START} search.storage"),
    _case("full disk, before any work", "base", params(base__dtype="bfloat16"), "of free disk space", "Got: 0 MB",
          "Free some", full_disk),
    _case("full disk, in the middle", "prepare", params(), "the disk must take what is written in", "disk I/O error",
          "ulimit -f", small_files),
    _case("REFT_HOME that is a file", "base", home_is_a_file, "the disk must take what the stage writes", "reft",
          "Move away the file"),
    _case("not a project", "reft run", without("dvc.yaml"), "a project folder must hold dvc.yaml", "project",
          "in the project's folder"),
    _case("not a DVC repository", "reft run", without(".dvc"), "a project folder must hold .dvc", "project",
          "Run: dvc init"),
    _case("not a git repository", "reft setup", without(".git"), "must be in a git repository", "project",
          "Run: git init"),
    _case("no git identity", "reft setup", nobody, "git does not know who you are", "dvc exp run",
          "git config user.email", code=0),
)  # fmt: skip
