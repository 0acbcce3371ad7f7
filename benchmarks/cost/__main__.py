"""How long training takes on a device, from a model of its operations and bytes: checked here, told for others.

check    measures this device's rates and warm steps of recipes (a) to (d), ours and others', beside the model's
article  tells the minutes of the published example, Llama-3-8B on one NVIDIA A10, with everything it assumes

python -m benchmarks.cost check --shape SmolLM2-135M --cases a,d --batch 8 --prompt 110 --threads 2
python -m benchmarks.cost article
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import torch

from benchmarks.cost.article import lines
from benchmarks.cost.check import Checked, check
from benchmarks.cost.measured import measure_rates
from benchmarks.cost.work import Rates
from benchmarks.sides.arguments import names, number
from benchmarks.sides.ours import CASES
from benchmarks.sides.random_base import SHAPES, random_subject, shape_config

LARGEST = 1024  # rows of a product; beyond it the rate no longer grows


def main(arguments: Sequence[str] | None = None) -> None:
    """Print a table, or the example's minutes."""
    words = argparse.ArgumentParser(
        prog="python -m benchmarks.cost", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    words.add_argument("what", choices=("check", "article"))
    default = " (default: %(default)s)"
    words.add_argument("--shape", choices=SHAPES, default="SmolLM2-135M", help=f"of the base{default}")
    words.add_argument("--cases", type=names(CASES), default=",".join(CASES), help=f"the recipes{default}")
    words.add_argument("--batch", type=number, default=8, help=f"rows of a step{default}")
    words.add_argument("--prompt", type=number, default=110, help=f"tokens of a prompt, on average{default}")
    words.add_argument("--repeats", type=number, default=5, help=f"rounds{default}")
    words.add_argument("--threads", type=number, default=2, help=f"of torch on a CPU{default}")
    words.add_argument("--device", default="cpu", help=f"that is measured{default}")
    words.add_argument("--out", type=Path, help="JSON file of the figures")
    given = words.parse_args(arguments)
    if given.what == "article":
        print("\n".join(lines()))
        return
    torch.set_num_threads(given.threads)
    device, config = torch.device(given.device), shape_config(given.shape)
    dtype = torch.float32 if device.type == "cpu" else torch.bfloat16
    seen: list[Rates] = []

    def measure() -> Rates:
        width, inner = config.hidden_size, config.intermediate_size
        seen.append(
            measure_rates(
                device, dtype, inner=width, columns=inner, vocabulary=config.vocab_size, seconds=0.02, largest=LARGEST
            )
        )
        return seen[-1]

    subject = random_subject(given.shape, device, dtype)
    found = []
    cases = [CASES[name] for name in given.cases]
    for each in check(subject, measure, cases, batch=given.batch, prompt=given.prompt, repeats=given.repeats):
        found.append(each)
        print(line(each), flush=True)
    print(f"\nRates of the last round: {seen[-1]}")
    if given.out is not None:
        figures = {
            "base": subject.name,
            "rates": [asdict(rates) for rates in seen],
            "figures": [asdict(each) for each in found],
        }
        given.out.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")


def line(each: Checked) -> str:
    """Return a step as a line of a table."""
    largest = sorted(each.shares.items(), key=lambda item: -item[1])[:4]
    shares = ", ".join(f"{name} {share:.0%}" for name, share in largest)
    return (
        f"| ({each.case}) {each.contender} | {each.batch} x {each.prompt} | {each.measured:.3f} s | "
        f"{each.predicted:.3f} s | {each.error:+.0%} | {shares} |"
    )


if __name__ == "__main__":
    main()
