"""``reft registry``, ``rollback``, ``lineage``, ``verify`` and tags: what versions there are, and what is live."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Self

from rich.console import Console
from rich.table import Table
from rich.text import Text

from flows.runs.lines import lines_to_copy
from pipelines.errors import PipelineError
from pipelines.params.whole import load_params
from pipelines.project.graph import read_graph
from pipelines.registry.aliases import CHALLENGER, CHAMPION, PREVIOUS
from pipelines.registry.listing import Listed, lineage_of, live_version, versions_of
from pipelines.registry.promote import broken_champion
from pipelines.registry.tagged import Tagged, tag_of, write_tag
from pipelines.runtime.process import importing
from pipelines.tracking.runs import open_store
from pipelines.wording import measure_words, part_value, points, share

if TYPE_CHECKING:
    from pipelines.registry.rollback import RolledBack
    from pipelines.registry.verify import Check

COLOURS = {"right": "green", "wrong": "red", "unknown": "yellow"}
DAY = 24 * 3600


def list_registry(root: Path, console: Console) -> bool:
    """Print the versions, and say loudly what is wrong with the live one; whether nothing is."""
    params = load_params(root / "params.yaml")
    store, model, measure = open_store(params.tracking, root), params.register_.model, params.prepare.measure_name()
    found = versions_of(store, model, measure)
    if not found:
        console.print(f"{model} has no version yet. Next: reft run", highlight=False, markup=False)
        return True
    console.print(_versions_table(found, model, measure), crop=False)
    trouble = broken_champion(store, model)
    if trouble is not None:
        back = any(PREVIOUS in one.aliases for one in found)
        console.print(Text(f"\n{trouble if back else trouble.partition(';')[0]}", style="bold red"))
    return trouble is None


def _versions_table(found: list[Listed], model: str, measure: str) -> Table:
    table = Table(title=f"Versions of {model}", title_justify="left")
    for column in ("version", "aliases"):
        table.add_column(column)
    for column in (measure_words(measure), "over the base", "age"):
        table.add_column(column, justify="right")
    table.add_column("gate", overflow="fold")
    for one in found:
        said = f"out of use since {one.withdrawn}" if one.withdrawn else one.gate
        table.add_row(
            str(one.version), ", ".join(one.aliases), "" if one.value is None else share(one.value),
            "" if one.lead is None else points(one.lead), _age(one.made), Text(said),
        )  # fmt: skip
    return table


def _age(made: datetime) -> str:
    seconds = max(0.0, (datetime.now(UTC) - made).total_seconds())
    if seconds < 2 * 3600:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.0f} h" if seconds < 2 * DAY else f"{seconds / DAY:.0f} days"


def show_lineage(root: Path, number: int, console: Console) -> None:
    """Print where a version comes from."""
    params = load_params(root / "params.yaml")
    model = params.register_.model
    parts = lineage_of(open_store(params.tracking, root), model, number).items()
    lines = [(part, part_value(value)) for part, value in parts]
    console.print(lines_to_copy(f"Version {number} of {model}", lines), crop=False)


def show_checks(root: Path, number: int, console: Console) -> bool:
    """Work out a version's hashes again and print how each stands; whether none is wrong."""
    from pipelines.registry.verify import verify

    params = load_params(root / "params.yaml")
    checks = verify(number, params=params, root=root, paths=dict(read_graph(root).paths))
    console.print(_checks_table(checks, f"Version {number} of {params.register_.model}"), crop=False)
    return all(check.state != "wrong" for check in checks)


def _checks_table(checks: list[Check], title: str) -> Table:
    table = Table(title=title, title_justify="left")
    for column in ("what", "state", "found"):
        table.add_column(column, overflow="fold")
    for check in checks:
        table.add_row(check.what, Text(check.state, style=COLOURS[check.state]), Text(check.found))
    return table


@dataclass(frozen=True)
class Tagging:
    """The git tag that a version is to have, and whether the version is champion already."""

    tagged: Tagged
    live: bool
    model: str
    version: int

    @classmethod
    def of(cls, root: Path, number: int | None) -> Self:
        """Look for the commit, before anything is done.

        Args:
            root: the project's root.
            number: of the version; None: the challenger, or the champion where that is the same.

        Raises:
            PipelineError: if there is no such version, or no commit whose dvc.lock made it.
        """
        params = load_params(root / "params.yaml")
        store, model = open_store(params.tracking, root), params.register_.model
        champion, challenger = (live_version(store, model, alias) for alias in (CHAMPION, CHALLENGER))
        wanted = number or challenger or champion
        if wanted is None:
            raise PipelineError(f"{model} must have a version to tag", got="none", do="reft run")
        return cls(tag_of(store, model, wanted, root=root), wanted == champion, model, wanted)

    def write(self, root: Path) -> str:
        """Make the tag; returns what to tell."""
        write_tag(root, self.tagged, f"Version {self.version} of {self.model}")
        return self.tagged.words()


def roll_back(root: Path, reason: str) -> RolledBack:
    """Make the previous champion live again, once it has been loaded; tell whoever is to be told."""
    with importing():
        from pipelines.registry.loads import check_loads
        from pipelines.registry.rollback import roll_back as go_back

    params = load_params(root / "params.yaml")
    store, model = open_store(params.tracking, root), params.register_.model
    done = go_back(store, model, reason=reason, check=lambda version: check_loads(version, params=params, root=root))
    with importing():
        from flows.runs.notify import notify_of_move  # Prefect takes seconds to import, and the champion is live by now

    notify_of_move(root, "RolledBack", done.words(), model=model, version=done.version)
    return done
