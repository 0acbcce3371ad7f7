"""How fast this project trains, scores and generates, beside pyreft, PEFT LoRA and the frozen base.

All run in one process on the same rows of real text, in turn, in fp32; each ratio is of neighbours in time. Before
anything is timed, losses, scores or tokens of ours and pyreft's at equal weights must agree.

  ours     this project's fit, score_choices and generate, as they come
  pyreft   pyreft 0.1.0's model, collator and loss in the loop of its Trainer
  LoRA     PEFT's, rank 8 on q and v of the recipe's layers
  floor    forward and backward of the frozen base down to the recipe's lowest layer, with nothing to train

Cases, all of rank 8: (a) all layers, f7+l7; (b) upper half, f7+l7; (c) all layers, l4; (d) upper half, l4.

Parts:
  steps        warm training steps
  operations   of pyreft's step, and of ours that fills the cone and after it; by itself with --operations
  beside       operations as torch counts them beside times, of 8 rows with prompts of 110 tokens: with one thread
               and two, in one process and with each side in a process of its own, which step in turn
  trainings    whole trainings from nothing, by epoch
  scoring      two one-token answers after each prompt: the first time, and with what is kept
  generation   greedy, for the first case
  memory       a process of its own for each side, for the first case
  search       twelve recipes or more, trained and scored on each side; by itself with --search
  profile      where a step's time goes, and what of it lies between operations and times; by itself with --profile

With the defaults it takes about an hour and a half on two cores; it starts by saying how long. A short run:

  python -m benchmarks.speed --parts steps --cases c --batch 8 --prompt 110 --repeats 3
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, is_dataclass
from typing import Any

from tqdm import tqdm

from benchmarks.sides.arguments import names, number, numbers, parser, positions
from benchmarks.sides.ours import CASES, Subject
from benchmarks.sides.project import load_subject
from benchmarks.sides.setting import announce
from benchmarks.speed.agreement import TOLERANCE
from benchmarks.speed.parts import LONG, ON_REQUEST, PARTS, Options


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, and print a table for each part."""
    chosen = _parser().parse_args(arguments)
    parts, options = chosen.parts, _options(chosen)
    subject = load_subject(options.root, threads=options.threads)
    setting = announce(subject, sum(PARTS[name].work(options) for name in parts))
    figures = run(subject, parts, options)
    if chosen.out is not None:
        report = {"setting": setting, "options": options, "figures": figures}
        chosen.out.write_text(json.dumps(report, indent=1, default=plain) + "\n", encoding="utf-8")


def run(subject: Subject, parts: Sequence[str], options: Options) -> dict[str, list[Any]]:
    """Measure each named part and print its table; return all figures."""
    words = {case.name: str(case) for case in options.cases}
    figures: dict[str, list[Any]] = {}
    for name in parts:
        part, started = PARTS[name], time.monotonic()
        found = list(tqdm(part.measure(subject, options), desc=name, unit="figure", file=sys.stderr))
        figures[name] = found
        print(f"## {part.title}\n\n{part.show(found, words)}")
        differences = [each.difference for each in found if hasattr(each, "difference")]
        if differences:
            print(f"Ours and pyreft's agree to {max(differences):.1e} nats at equal weights (bound: {TOLERANCE}).")
        print(f"Measured in {(time.monotonic() - started) / 60:.1f} minutes.\n", flush=True)
    return figures


def _parser() -> argparse.ArgumentParser:
    built = parser("benchmarks.speed", __doc__)
    default = " (default: %(default)s)"
    parts = ",".join(name for name in PARTS if name not in ON_REQUEST)
    built.add_argument("--parts", type=names(PARTS), default=parts, help=f"what to measure{default}")
    for part in ON_REQUEST:
        built.add_argument(f"--{part}", dest="parts", action="store_const", const=[part], help=f"--parts {part}")
    built.add_argument("--cases", type=names(CASES), default=",".join(CASES), help=f"the recipes{default}")
    built.add_argument("--batch", type=numbers, default="8,32", help=f"rows of a step{default}")
    built.add_argument("--prompt", type=numbers, default="110,512", help=f"tokens of a prompt, on average{default}")
    built.add_argument("--long-batch", type=number, default=4, help=f"rows of prompts above {LONG} tokens{default}")
    built.add_argument("--repeats", type=number, default=5, help=f"rounds; three times as many to generate{default}")
    built.add_argument("--rows", type=number, default=64, help=f"rows of a whole training{default}")
    built.add_argument("--epochs", type=number, default=3, help=f"of a whole training{default}")
    built.add_argument("--scored", type=number, default=64, help=f"prompts that are scored{default}")
    built.add_argument("--tokens", type=number, default=32, help=f"of a generated text{default}")
    built.add_argument("--search-train", type=number, default=192, help=f"rows that a trial trains on{default}")
    built.add_argument("--search-validation", type=number, default=200, help=f"prompts it is scored on{default}")
    built.add_argument(
        "--search-positions", type=positions, default="f7+l7,f1+l1,l4,l1", help=f"three recipes for each{default}"
    )
    built.add_argument("--beside-threads", type=numbers, default="1,2", help=f"of the part beside{default}")
    return built


def _options(chosen: argparse.Namespace) -> Options:
    return Options(
        cases=tuple(CASES[name] for name in chosen.cases),
        batches=tuple(chosen.batch),
        prompts=tuple(chosen.prompt),
        long_batch=chosen.long_batch,
        repeats=chosen.repeats,
        rows=chosen.rows,
        epochs=chosen.epochs,
        scored=chosen.scored,
        tokens=chosen.tokens,
        search_train=chosen.search_train,
        search_validation=chosen.search_validation,
        search_positions=chosen.search_positions,
        threads=chosen.threads,
        beside_threads=tuple(chosen.beside_threads),
        root=chosen.root,
    )


def plain(value: Any) -> Any:
    """Return what json can write for a figure or a path."""
    return asdict(value) if is_dataclass(value) and not isinstance(value, type) else str(value)


if __name__ == "__main__":
    main()
