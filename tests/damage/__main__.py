"""``python -m tests.damage [WORD]``: each damage (with the word) and its answer as a table; 1 if one is wrong."""

from __future__ import annotations

import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue

from tests.damage.cases import DAMAGES, Damage
from tests.damage.finished import Answer, FinishedProject

SIDE_BY_SIDE = 2


def main() -> int:
    """Print a row for each damage."""
    chosen = [damage for damage in DAMAGES if all(word in damage.name for word in sys.argv[1:])]
    with tempfile.TemporaryDirectory(prefix="reft-damage-") as name:
        print("| damage | then | outcome | what was said | seconds |\n|---|---|---|---|---|", flush=True)
        outcomes = Counter(
            answer.outcome for damage, answer in suffered(chosen, Path(name).resolve()) if _shown(damage, answer, name)
        )
    print(f"\n{len(chosen)} kinds of damage: {', '.join(f'{count} {what}' for what, count in outcomes.items())}")
    return 1 if outcomes["WRONG"] else 0


def suffered(damages: Sequence[Damage], folder: Path) -> Iterator[tuple[Damage, Answer]]:
    """Every damage with its answer; some at a time, each with a project of its own."""
    projects: SimpleQueue[FinishedProject] = SimpleQueue()

    def made(place: int) -> None:
        own = folder / str(place)
        own.mkdir()
        projects.put(FinishedProject(own))

    def suffer(damage: Damage) -> tuple[Damage, Answer]:
        project = projects.get()
        try:
            return damage, project.suffer(damage)
        finally:
            projects.put(project)

    with ThreadPoolExecutor(SIDE_BY_SIDE) as pool:
        list(pool.map(made, range(SIDE_BY_SIDE)))
        yield from pool.map(suffer, damages)


def _shown(damage: Damage, answer: Answer, folder: str) -> bool:
    said = " ".join("; ".join(answer.problems or (answer.said,)).replace(folder, "").split()).replace("|", "\\|")
    command = " ".join(damage.command)
    print(f"| {damage.name} | {command} | {answer.outcome} | {said[:500]} | {answer.seconds:.0f} |", flush=True)
    return True


if __name__ == "__main__":
    sys.exit(main())
