"""Words of the benchmarks' command lines, read and checked."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Collection
from pathlib import Path

from reft import parse_positions


def parser(
    program: str, about: str | None, *, out: str = "JSON file for every single timing"
) -> argparse.ArgumentParser:
    """Return a parser with what all benchmarks take; ``about`` is shown as it is written, ``out`` beside --out."""
    built = argparse.ArgumentParser(
        prog=f"python -m {program}", description=about, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    built.add_argument("--threads", type=number, help="of torch on a CPU (default: run.threads of params.yaml)")
    built.add_argument("--root", type=Path, default=Path(), help="folder of params.yaml (default: this one)")
    built.add_argument("--out", type=Path, help=out)
    return built


def number(text: str) -> int:
    """Read an integer of at least 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be an integer of at least 1; got {text!r}")
    return int(text)


def numbers(text: str) -> list[int]:
    """Read integers of at least 1 with commas between them."""
    return [number(part) for part in text.split(",")]


def positions(text: str) -> tuple[str, ...]:
    """Read edited prompt tokens with commas between them, each as :func:`reft.parse_positions` reads them."""
    found = tuple(text.split(","))
    for each in found:
        try:
            parse_positions(each)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None
    return found


def names(known: Collection[str]) -> Callable[[str], list[str]]:
    """Return a reader of some of the known names, with commas between them."""

    def read(text: str) -> list[str]:
        found = text.split(",")
        if unknown := [name for name in found if name not in known]:
            raise argparse.ArgumentTypeError(f"must be some of {','.join(known)}; got {unknown[0]!r}")
        return found

    return read
