"""What the cone saves where rows have options of their own: ``python -m benchmarks.quality.options``.

Scoring and training on ARC-Easy of REFT_BENCH_DATA, with the cone and without it: seconds, and operations of matrix
products and attention as torch counts them.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch.utils.flop_counter import FlopCounterMode

from benchmarks.quality.harness import open_named, questions
from pipelines.model.scores import ask
from reft import ConeConfig, Encoded, FitConfig, Question, ReftConfig, ReftModel, encode, fit, set_cone

FIT = FitConfig(
    epochs=1, batch_size=16, accumulation=1, learning_rate=2e-3, warmup_ratio=0.1, weight_decay=0.0, max_grad_norm=1.0,
    seed=0, checkpoint_every=1000,
)  # fmt: skip


def main() -> int:
    """Print a table."""
    words = argparse.ArgumentParser(description=__doc__)
    words.add_argument("--rows", type=int, default=96)
    words.add_argument("--params", type=Path, default=Path("params.yaml"))
    given = words.parse_args()
    opened = open_named(words, given.params)
    loaded = opened.base
    task, rows = questions(opened.data / "ARC-Easy", opened.params, loaded.tokenizer, given.rows)
    layers = tuple(range(loaded.model.config.num_hidden_layers // 2, loaded.model.config.num_hidden_layers))
    model = ReftModel(loaded.model, ReftConfig(layers, "l4", 8), seed=0).eval()
    plain = [encode(loaded.tokenizer, row.prompt, row.completion) for row in rows]
    against = [_question(loaded.tokenizer, row) for row in rows]
    parts: dict[str, Callable[[], Any]] = {
        "score": lambda: ask(model, loaded.tokenizer, task, rows, batch_size=32),
        "train on the right option": lambda: list(fit(model, plain, FIT, pad_id=0)),
        "train against the others": lambda: list(fit(model, against, FIT, pad_id=0)),
    }
    print(f"{len(rows)} rows, upper half, l4, rank 8\n")
    print("| | whole rows, s | first use, s | kept, s | whole rows, GFLOP | kept, GFLOP | times fewer | times faster |")
    print("|---|---|---|---|---|---|---|---|")
    for name, run in parts.items():
        set_cone(loaded.model, ConeConfig(enabled=False))
        whole, operations = _measured(run)
        set_cone(loaded.model, ConeConfig())
        first, _ = _measured(run)
        kept, fewer = _measured(run)
        print(
            f"| {name} | {whole:.1f} | {first:.1f} | {kept:.1f} | {operations / 1e9:.0f} | {fewer / 1e9:.0f} | "
            f"{operations / fewer:.1f} | {whole / kept:.1f} |",
            flush=True,
        )
    return 0


def _measured(run: Callable[[], Any]) -> tuple[float, int]:
    """Seconds of one call, and operations of another."""
    counter = FlopCounterMode(display=False)
    started = time.perf_counter()
    run()
    seconds = time.perf_counter() - started
    with counter:
        run()
    return seconds, counter.get_total_flops()


def _question(tokenizer: Any, row: Any) -> Question:
    options: tuple[Encoded, ...] = tuple(encode(tokenizer, row.prompt, choice) for choice in row.choices)
    return Question(options, row.choices.index(row.completion), (1.0,) * len(options))


if __name__ == "__main__":
    sys.exit(main())
