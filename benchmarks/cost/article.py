"""The published example: Llama-3-8B, tuned on one NVIDIA A10 in 13 minutes and 44 seconds.

The article does not tell its rows, epochs or recipe. The authors' README has a recipe for instructions, 1,000 rows of
Ultrafeedback; it is taken here, with the article's base and device. Everything else is written out as assumed.
"""

from __future__ import annotations

from benchmarks.cost.step import Contender, Recipe, Rows, Shape, first_pass, step
from benchmarks.cost.work import Rates
from benchmarks.sides.random_base import shape_config

MATRIX, TRAFFIC = 125e12, 600e9  # data sheet: bf16 on tensor cores without sparsity, and memory
MATRIX_SHARE, TRAFFIC_SHARE = 0.5, 0.8
LAUNCH = 8e-6  # of a kernel, from Python
ROWS, EPOCHS, BATCH = 1000, 9, 4
PROMPT, COMPLETION = 180, 320
README = Recipe((3, 9, 18, 24), first=5, last=5, rank=4, per_layer=2)
LAST = Recipe((3, 9, 18, 24), first=0, last=5, rank=4)
PUBLISHED = 13 + 44 / 60

A100_MATRIX, A100_TRAFFIC = 312e12, 2039e9  # data sheet of the one with 80 GB
LLAMA_7B = Shape(4096, 32, 32, 32, 128, 11008, 32000, itemsize=2)
PAPER = 18.0  # minutes of the same recipe on 1,000 rows, Llama-2-7B and one A100, as the authors have it


def data_sheet(device: str, matrix: float, traffic: float) -> Rates:
    """Return the assumed shares of a data sheet's rates."""
    return Rates(device, ((1.0, matrix * MATRIX_SHARE),), ((1.0, traffic * TRAFFIC_SHARE),), LAUNCH, queued=True)


A10 = data_sheet("NVIDIA A10", MATRIX, TRAFFIC)
A100 = data_sheet("NVIDIA A100", A100_MATRIX, A100_TRAFFIC)
LLAMA_8B = Shape.of(shape_config("Llama-3-8B"), itemsize=2)


def minutes(recipe: Recipe, contender: Contender, shape: Shape = LLAMA_8B, rates: Rates = A10) -> float:
    """Return the minutes of the whole training, for ours with the first pass that computes what is kept."""
    rows = Rows(BATCH, PROMPT, COMPLETION)
    seconds = EPOCHS * rates.seconds(step(shape, recipe, rows, contender))
    if contender == "ours":
        seconds += rates.seconds(first_pass(shape, recipe, rows))
    return seconds * ROWS / BATCH / 60


def lines() -> list[str]:
    """Return the minutes with all that they assume."""
    return [
        f"Assumed: {A10.device} at {MATRIX_SHARE:.0%} of its data sheet's {MATRIX / 1e12:.0f} TFLOP/s (dense bf16) "
        f"and {TRAFFIC_SHARE:.0%} of its {TRAFFIC / 1e9:.0f} GB/s, {LAUNCH * 1e6:.0f} us to start a kernel;",
        f"Llama-3-8B in bf16; {ROWS} rows, each a prompt of {PROMPT} tokens and an answer of {COMPLETION} (at most 768 "
        f"in the authors' script); batches of {BATCH}; {EPOCHS} epochs; no gradient checkpointing; kept constants on "
        "the device or copied beside the work; loading, validation and saving left out.",
        "",
        "| recipe | pyreft | ours | PEFT LoRA on the same layers |",
        "|---|---|---|---|",
        *(_line(name, recipe) for name, recipe in (("f5+l5", README), ("l5, tied", LAST))),
        "",
        f"The article says {PUBLISHED:.1f} minutes, for rows, epochs and a recipe that it does not tell.",
        f"The authors say {PAPER:.0f} minutes for {ROWS} rows of f5+l5 with Llama-2-7B on one A100; the same shares of "
        f"its data sheet, {A100_MATRIX / 1e12:.0f} TFLOP/s and {A100_TRAFFIC / 1e9:.0f} GB/s, and the same rows say "
        f"{minutes(README, 'pyreft', LLAMA_7B, A100):.1f}.",
    ]


def _line(name: str, recipe: Recipe) -> str:
    found = [f"{minutes(recipe, who):.1f} min" for who in ("pyreft", "ours", "LoRA")]
    return f"| layers {';'.join(str(layer) for layer in recipe.layers)}, {name}, r{recipe.rank} | {' | '.join(found)} |"
