"""``python -m tests.damage [WORD]``: each damage (with the word) and its answer as a table; 1 if one is wrong.

With a file named by ``REFT_RECORD`` a command that was stopped goes on with what it lacks.
"""

from __future__ import annotations

import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue

from tests.damage.cases import DAMAGES, Damage
from tests.damage.finished import Answer, FinishedProject, known
from tests.record import Record, named_record

SIDE_BY_SIDE = 2


def main() -> int:
    """Print a row for each damage."""
    chosen = [damage for damage in DAMAGES if all(word in damage.name for word in sys.argv[1:])]
    with tempfile.TemporaryDirectory(prefix="reft-damage-") as name:
        print("| damage | then | outcome | what was said | seconds |\n|---|---|---|---|---|", flush=True)
        outcomes = Counter(
            answer.outcome
            for damage, answer in suffered(chosen, Path(name).resolve(), named_record())
            if _shown(damage, answer, name)
        )
    print(f"\n{len(chosen)} kinds of damage: {', '.join(f'{count} {what}' for what, count in outcomes.items())}")
    return 1 if outcomes["WRONG"] else 0


def suffered(damages: Sequence[Damage], folder: Path, record: Record) -> Iterator[tuple[Damage, Answer]]:
    """Every damage with its answer; some at a time, each with a project of its own, but for what the record knows."""
    projects: SimpleQueue[FinishedProject] = SimpleQueue()

    def made(place: int) -> None:
        own = folder / str(place)
        own.mkdir()
        projects.put(FinishedProject(own))

    def suffer(damage: Damage) -> tuple[Damage, Answer]:
        answer = known(record, damage)
        if answer is not None:
            return damage, answer
        project = projects.get()
        try:
            return damage, project.answer_to(damage, record)
        finally:
            projects.put(project)

    with ThreadPoolExecutor(SIDE_BY_SIDE) as pool:
        if any(known(record, damage) is None for damage in damages):
            list(pool.map(made, range(SIDE_BY_SIDE)))
        yield from pool.map(suffer, damages)


def _shown(damage: Damage, answer: Answer, folder: str) -> bool:
    said = " ".join("; ".join(answer.problems or (answer.said,)).replace(folder, "").split()).replace("|", "\\|")
    command = " ".join(damage.command)
    print(f"| {damage.name} | {command} | {answer.outcome} | {said[:500]} | {answer.seconds:.0f} |", flush=True)
    return True


if __name__ == "__main__":
    sys.exit(main())
