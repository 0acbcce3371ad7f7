"""Time and memory of stage prepare on a large file: a million rows of CSV, two gigabytes of JSON Lines, 300 classes,
prompts of 8,000 tokens, and rows of one pattern.

Each case is a process of its own that makes nothing but the splits; what it holds beyond its libraries is its peak less
that of a case of a thousand rows. Prints a Markdown table:

  python -m benchmarks.speed.preparation --base models/base.json
  python -m benchmarks.speed.preparation --base models/base.json --cases csv-1000,csv-1000000

The rows are made up: words by number, so that few are the same text or nearly, but every hundredth, which is that of
the one before it.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.sides.arguments import names
from benchmarks.speed.peak import peak_memory
from pipelines.params.whole import check_params
from pipelines.yaml_file import read_yaml

WORDS = ("amber", "bridge", "candle", "drift", "engine", "field", "grain", "harbour", "island", "jacket")
DIGITS, STEP = 9, 387_420_489  # odd, and no multiple of 5: so no two rows have the same digits
MOST_TOKENS = 8192


@dataclass(frozen=True)
class Case:
    """A file: its format, its rows, the words of each, and its classes."""

    format: str
    rows: int
    words: int = 20
    classes: int = 2
    pattern: bool = False  # each row a sentence with two numbers of its own, so that most are nearly the same


CASES = {
    "csv-1000": Case("csv", 1000),
    "csv-300000": Case("csv", 300_000),
    "csv-1000000": Case("csv", 1_000_000),
    "jsonl-200MB": Case("jsonl", 100_000, words=310),
    "jsonl-2GB": Case("jsonl", 1_000_000, words=310),
    "classes-300": Case("csv", 100_000, classes=300),
    "prompts-8000": Case("jsonl", 5000, words=7900),  # a word is a token of the default base
    "pattern-100000": Case("csv", 100_000, pattern=True),
    "pattern-1000000": Case("csv", 1_000_000, pattern=True),
}


def text(number: int, words: int) -> str:
    """A row's text: digits of its own in words, again and again; each hundredth row has that of the row before it."""
    number -= number % 100 == 99
    digits = [WORDS[int(digit)] for digit in f"{number * STEP % 10**DIGITS:0{DIGITS}}"]
    return " ".join((digits * (words // len(digits) + 1))[:words])


def sentence(number: int) -> str:
    """One of a million sentences that differ in two numbers alone."""
    return (
        f"how much are {number % 1000} apples and {number // 1000} pears together said without a word before or after"
    )


def lines(case: Case) -> Iterator[str]:
    """The file's lines."""
    if case.format == "csv":
        yield "text,label\n"
    for number in range(case.rows):
        said = sentence(number) if case.pattern else text(number, case.words)
        label = number % 100 % case.classes if case.classes < 100 else number % case.classes
        yield f"{said},{label}\n" if case.format == "csv" else json.dumps({"text": said, "label": label}) + "\n"


def prepare_once(name: str, base: Path) -> dict[str, Any]:
    """Run the stage on a case in this process; return its seconds, its peak and what it found."""
    from pipelines.stages import prepare

    case = CASES[name]
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        data = root / "data" / "own" / f"rows.{case.format}"
        data.parent.mkdir(parents=True)
        with data.open("w", encoding="utf-8") as file:
            file.writelines(lines(case))
        raw: Any = read_yaml(Path("params.yaml"))
        record = json.loads(base.read_text(encoding="utf-8"))
        raw["base"] |= {"source": record["source"], "sha256": record["source_sha256"], "dtype": record["dtype"]}
        share = case.rows // 10
        raw["prepare"] |= {
            "source": f"file:data/own/{data.name}", "sha256": None, "format": case.format, "columns": None,
            "template": "{text}\nLabel:", "label_column": "label", "train_rows": 7 * share, "validation_rows": share,
            "test_rows": share, "max_tokens": MOST_TOKENS,
            "labels": {
                f"class {label}": {"word": f" {label:03d}", "min": None, "max": None, "values": [label]}
                for label in range(case.classes)
            },
        }  # fmt: skip
        raw["search"]["train_rows"] = min(raw["search"]["train_rows"], 7 * share)
        began, used = time.monotonic(), time.process_time()
        found = prepare.run(
            check_params(raw, "params.yaml"), root=root, base=base, out=root / "prepared", card=root / "card.json"
        )
        seconds, processor = time.monotonic() - began, time.process_time() - used
        return {
            "seconds": seconds,
            "processor": processor,
            "peak": peak_memory(),
            "bytes": data.stat().st_size,
            "read": found.read,
        }


def main(argv: list[str] | None = None) -> int:
    """Measure the cases, each in a process of its own, and print the table."""
    parse = argparse.ArgumentParser(
        prog="python -m benchmarks.speed.preparation",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parse.add_argument("--base", type=Path, default=Path("models/base.json"), help="record of a base in the store")
    parse.add_argument("--cases", type=names(tuple(CASES)), default=tuple(CASES))
    parse.add_argument("--one", choices=tuple(CASES), help="one case in this process, as JSON")
    arguments = parse.parse_args(argv)
    if arguments.one:
        print(json.dumps(prepare_once(arguments.one, arguments.base)))
        return 0
    print("| case | rows | file, MB | seconds | of the processor | rows a second of it | peak, MB |")
    print("|---|---|---|---|---|---|---|", flush=True)
    for name in arguments.cases:
        command = [sys.executable, "-m", "benchmarks.speed.preparation", "--base", str(arguments.base), "--one", name]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        found = json.loads(done.stdout.splitlines()[-1])
        rate = found["read"] / found["processor"]
        print(
            f"| {name} | {found['read']} | {found['bytes'] / 1e6:.0f} | {found['seconds']:.0f} "
            f"| {found['processor']:.0f} | {rate:.0f} | {found['peak'] / 1e6:.0f} |",
            flush=True,
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
