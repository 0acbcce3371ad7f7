"""``python -m tests.bad_inputs``: run every case and print a table in Markdown; the exit code is 1 if one is wrong."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from tests.bad_inputs import CASES
from tests.bad_inputs.sound import Answer, Sound


def main() -> int:
    """Print a row for each case."""
    wrong = 0
    print("| bad input | command | exit code | message |\n| --- | --- | --- | --- |")
    with tempfile.TemporaryDirectory(prefix="reft-bad-") as folder:
        sound = Sound(Path(folder))
        for number, case in enumerate(CASES):
            answer, found = sound.try_case(case, f"{number}")
            wrong += bool(found)
            command = f"`{case.run}`" if case.run.startswith("reft ") else f"`python -m pipelines {case.run}`"
            print(f"| {case.name} | {command} | {answer.code} | {_cell(answer, folder)} |", flush=True)
            for problem in found:
                print(f"WRONG, {case.name}: {problem}", file=sys.stderr)
    print(f"\n{len(CASES)} cases, {wrong} wrong")
    return 1 if wrong else 0


def _cell(answer: Answer, folder: str) -> str:
    text = " ".join(answer.message.replace(folder, "").split())
    return (text if len(text) <= 400 else text[:397] + "...").replace("|", "\\|")


if __name__ == "__main__":
    sys.exit(main())
