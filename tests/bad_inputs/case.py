"""One bad input: how a sound project is spoilt, what is run in it, and what must be said."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tests.project import Project


@dataclass(frozen=True)
class BadInput:
    """A row of the table.

    Attributes:
        name: what is wrong.
        run: a stage, or a command line of ``reft``.
        spoil: what makes a sound project wrong.
        rule: a part of the message: the rule that is broken.
        got: a part of it: the value that breaks it.
        do: a part of it: what to do.
        inside: run in the stage's process before it starts, for what only a machine can do wrong.
        code: the exit code.
    """

    name: str
    run: str
    spoil: Callable[[Project], None]
    rule: str
    got: str
    do: str
    inside: Callable[[], None] | None = None
    code: int = 2


def params(**changes: Any) -> Callable[[Project], None]:
    """Spoil by keys of params.yaml; ``__`` stands for the dot."""
    return lambda project: project.params({key.replace("__", "."): value for key, value in changes.items()})


def own(name: str, content: bytes | str, **changes: Any) -> Callable[[Project], None]:
    """Spoil by a data file of this content that is then the source, with other keys of ``prepare`` as given."""

    def spoil(project: Project) -> None:
        data = content.encode() if isinstance(content, str) else content
        (project.root / "data" / "own" / name).write_bytes(data)
        kind = name.rpartition(".")[2]
        settings = {"source": f"file:data/own/{name}", "format": kind} | changes
        project.params({f"prepare.{key}": value for key, value in settings.items()})

    return spoil
