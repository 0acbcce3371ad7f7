"""What the cone saves where answers are long: ``python -m benchmarks.quality.options``.

Scoring and training on ARC-Easy, whose rows have options of their own, and training on worked solutions of GSM8K, of
REFT_BENCH_DATA, with the cone and without it: seconds of the processor, which other programs on the machine do not
change much, and operations of matrix products as torch counts them; those of attention are not among them.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from benchmarks.quality.harness import first_rows, open_named, questions
from pipelines.intake.references import find_references
from pipelines.model.scores import ask
from pipelines.sources.raw_row import RawRow
from reft import ConeConfig, Encoded, FitConfig, Question, ReftConfig, ReftModel, encode, fit, set_cone

FIT = FitConfig(
    epochs=1, batch_size=16, accumulation=1, learning_rate=2e-3, warmup_ratio=0.1, weight_decay=0.0, max_grad_norm=1.0,
    seed=0, checkpoint_every=1000,
)  # fmt: skip
LONGEST_SOLUTION = 1200  # characters


def main(arguments: Sequence[str] | None = None) -> int:
    """Print a table."""
    words = argparse.ArgumentParser(description=__doc__)
    words.add_argument("--rows", type=int, default=96, help="test rows of each data set")
    words.add_argument("--params", type=Path, default=Path("params.yaml"))
    given = words.parse_args(arguments)
    opened = open_named(words, given.params)
    loaded, tokenizer = opened.base, opened.base.tokenizer
    task, rows = questions(opened.data / "ARC-Easy", opened.params, tokenizer, given.rows)
    _, solved = first_rows(opened.data / "gsm8k", opened.params, tokenizer, given.rows, _solutions)
    layers = tuple(range(loaded.model.config.num_hidden_layers // 2, loaded.model.config.num_hidden_layers))
    model = ReftModel(loaded.model, ReftConfig(layers, "l4", 8), seed=0).eval()
    plain, long = ([encode(tokenizer, row.prompt, row.completion) for row in each] for each in (rows, solved))
    against = [_question(tokenizer, row) for row in rows]
    parts: dict[str, Callable[[], Any]] = {
        "ARC-Easy, score": lambda: ask(model, tokenizer, task, rows, batch_size=32),
        "ARC-Easy, train on the right option": lambda: list(fit(model, plain, FIT, pad_id=0)),
        "ARC-Easy, train against the others": lambda: list(fit(model, against, FIT, pad_id=0)),
        "GSM8K, train on the solutions": lambda: list(fit(model, long, FIT, pad_id=0)),
    }
    print(f"{given.rows} rows, upper half, l4, rank 8\n")
    print("| | whole rows, s | first use, s | kept, s | whole rows, GFLOP | kept, GFLOP | times fewer | times faster |")
    print("|---|---|---|---|---|---|---|---|")
    for name, run in parts.items():
        set_cone(loaded.model, ConeConfig(enabled=False))
        whole, operations = _seconds(run), _operations(run)
        set_cone(loaded.model, ConeConfig())
        first, kept, fewer = _seconds(run), _seconds(run), _operations(run)
        print(
            f"| {name} | {whole:.1f} | {first:.1f} | {kept:.1f} | {operations / 1e9:.0f} | {fewer / 1e9:.0f} | "
            f"{operations / fewer:.1f} | {whole / kept:.1f} |",
            flush=True,
        )
    return 0


def _seconds(run: Callable[[], Any]) -> float:
    started = time.process_time()
    run()
    return time.process_time() - started


class Operations(TorchDispatchMode):
    """Counts the operations of matrix products inside the context.

    torch's ``FlopCounterMode`` puts hooks on every module, with which the cone keeps nothing.
    """

    total = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        named = kwargs or {}
        out = func(*args, **named)
        formula = flop_registry.get(func.overloadpacket)
        if formula is not None:
            self.total += int(formula(*args, **named, out_val=out))
        return out


def _operations(run: Callable[[], Any]) -> int:
    with Operations() as counted:
        run()
    return counted.total


def _solutions(raw: Sequence[RawRow]) -> dict[str, Any]:
    found = find_references(raw)
    assert found is not None
    return found.keys(LONGEST_SOLUTION)


def _question(tokenizer: Any, row: Any) -> Question:
    options: tuple[Encoded, ...] = tuple(encode(tokenizer, row.prompt, choice) for choice in row.choices)
    return Question(options, row.choices.index(row.completion), (1.0,) * len(options))


if __name__ == "__main__":
    sys.exit(main())
