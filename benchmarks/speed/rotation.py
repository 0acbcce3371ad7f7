"""What an orthonormal R costs: a training step of one LoReFT intervention here and in pyreft, and its memory.

``python -m benchmarks.speed.rotation``. A step is forward, backward and AdamW on hidden states that have a gradient, as
those above another intervention do. Both train without weight decay, under which pyreft's R becomes zero, and on the
same machine in turn, so what counts is the ratio.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from benchmarks.sides.authors import authors_intervention
from benchmarks.sides.timing import Timing, interleaved, ratio
from pipelines.runtime.device import torch_threads
from reft.edits.formulas.loreft import Formula as LoreftIntervention
from reft.edits.methods.forms import EditForm

PYREFT, HERE = "pyreft", "here"
STEPS = {PYREFT: 1, HERE: 10}
"""Of a round. One of ours is as short as a scheduler's slice of time, so alone it would be lost in noise."""


@dataclass(frozen=True)
class Setting:
    """What is measured; the defaults are what the project's claim is about.

    Attributes:
        hidden: width of the hidden states.
        rank: of the intervention.
        rows: of the batch.
        positions: edited tokens of each row.
        repeats: measured rounds.
        warmup: rounds before them.
        device: where.
    """

    hidden: int = 2048
    rank: int = 8
    rows: int = 16
    positions: int = 14
    repeats: int = 7
    warmup: int = 1
    device: str = "cpu"


@dataclass(frozen=True)
class Cost:
    """What one implementation costs.

    Attributes:
        step: seconds of a training step.
        memory: bytes of parameters and buffers, after training and use.
    """

    step: Timing
    memory: int


def measure(setting: Setting) -> dict[str, Cost]:
    """Return the cost of pyreft's intervention and of ours."""
    torch.manual_seed(0)
    form = EditForm(setting.rank, init="paper")
    modules: dict[str, nn.Module] = {
        PYREFT: authors_intervention("loreft", setting.hidden, form).to(setting.device),
        HERE: LoreftIntervention(setting.hidden, form, torch.Generator().manual_seed(0)).to(setting.device),
    }
    rounds = {name: _training(module, setting, STEPS[name]) for name, module in modules.items()}
    timings = interleaved(rounds, repeats=setting.repeats, warmup=setting.warmup)
    return {
        name: Cost(Timing(tuple(seconds / STEPS[name] for seconds in timings[name].seconds)), _memory(module, setting))
        for name, module in modules.items()
    }


def _training(module: nn.Module, setting: Setting, steps: int) -> Callable[[], None]:
    shape = (setting.rows, setting.positions, setting.hidden)
    hidden = torch.randn(shape, device=setting.device, requires_grad=True)
    gradient = torch.randn(shape, device=setting.device)
    optimizer = torch.optim.AdamW(module.parameters(), lr=1e-3, weight_decay=0.0, fused=True)

    def train() -> None:
        for _ in range(steps):
            optimizer.zero_grad(set_to_none=True)
            hidden.grad = None
            module(hidden).backward(gradient)
            optimizer.step()

    return train


@torch.no_grad()
def _memory(module: nn.Module, setting: Setting) -> int:
    module(torch.zeros(1, setting.hidden, device=setting.device))  # without gradients, when ours keeps R too
    return sum(value.nbytes for value in (*module.parameters(), *module.buffers()))


def report(setting: Setting, costs: dict[str, Cost]) -> str:
    """Return the costs as a table in Markdown, and the ratios."""
    lines = [
        f"One training step of LoReFT: d = {setting.hidden}, r = {setting.rank}, {setting.rows} x {setting.positions} "
        f"tokens, fp32, {setting.device}, threads: {torch.get_num_threads()}, rounds in turn: {setting.repeats}",
        "",
        "|        | ms, median | ms, quartiles      | parameters and buffers, KiB | in d r numbers |",
        "|--------|-----------:|-------------------:|----------------------------:|---------------:|",
    ]
    for name, cost in costs.items():
        median, (lower, upper) = cost.step.median, cost.step.quartiles
        times = f"{1e3 * median:10.2f} | {f'{1e3 * lower:.2f} to {1e3 * upper:.2f}':>18}"
        kilobytes, units = cost.memory / 1024, cost.memory / (4 * setting.hidden * setting.rank)
        lines.append(f"| {name:6} | {times} | {kilobytes:27,.0f} | {units:14.1f} |")
    slower, larger = ratio(costs[PYREFT].step, costs[HERE].step), costs[PYREFT].memory / costs[HERE].memory
    return "\n".join([*lines, "", f"pyreft takes {slower:.1f} times as long and keeps {larger:.1f} times as much."])


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print the table, and return 1 if the ratio is below ``--at-least``."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.speed.rotation", description=(__doc__ or "").split("\n")[0]
    )
    default = Setting()
    for name in ("hidden", "rank", "rows", "positions", "repeats", "warmup"):
        parser.add_argument(f"--{name}", type=int, default=getattr(default, name))
    parser.add_argument("--device", default=default.device)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--at-least", type=float, default=0.0, help="exit with 1 if pyreft takes fewer times as long")
    given = vars(parser.parse_args(arguments))
    threads, least = given.pop("threads"), given.pop("at_least")
    with torch_threads(threads):
        setting = Setting(**given)
        costs = measure(setting)
        print(report(setting, costs))
    return 0 if ratio(costs[PYREFT].step, costs[HERE].step) >= least else 1


if __name__ == "__main__":
    sys.exit(main())
