"""Peak memory of a training: each side in a process of its own, because a process's peak never falls again."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from benchmarks.sides.others import pyreft_model, pyreft_training
from benchmarks.sides.ours import CASES, OurTraining, Subject, Training, fit_config
from benchmarks.sides.project import load_subject
from benchmarks.speed.peak import peak_memory
from benchmarks.speed.steps import EPOCHS, OURS, PYREFT
from reft import Encoded, ReftConfig

STEPS = 6
ROWS = 32


@dataclass(frozen=True)
class MemoryFigures:
    """Bytes that a process held at most.

    Attributes:
        side: ours or pyreft's.
        case: the recipe's letter.
        batch: rows of a step.
        prompt: nominal tokens of a prompt.
        built: by the time the model was built, code and weights included.
        peak: by the end of the steps.
        device_peak: of the accelerator's memory; None on a CPU.
    """

    side: str
    case: str
    batch: int
    prompt: int
    built: int
    peak: int
    device_peak: int | None


def measure_memory(side: str, case: str, *, batch: int, prompt: int, threads: int | None, root: Path) -> MemoryFigures:
    """Run a few steps in a child process.

    Raises:
        subprocess.CalledProcessError: if the child fails; what it said is on this process's standard error.
    """
    options = {"side": side, "case": case, "batch": batch, "prompt": prompt, "threads": threads, "root": root}
    words = [word for name, value in options.items() if value is not None for word in (f"--{name}", str(value))]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.speed.memory", *words], check=True, stdout=subprocess.PIPE, text=True
    )
    return MemoryFigures(**json.loads(done.stdout.splitlines()[-1]))


def main(arguments: Sequence[str] | None = None) -> None:
    """Take steps of one side, and print the figures as a line of JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.speed.memory", description=__doc__)
    parser.add_argument("--side", choices=(OURS, PYREFT), required=True)
    parser.add_argument("--case", choices=CASES, default="a", help="the recipe (default: %(default)s)")
    parser.add_argument("--batch", type=int, default=8, help="rows of a step (default: %(default)s)")
    parser.add_argument("--prompt", type=int, default=110, help="tokens of a prompt (default: %(default)s)")
    parser.add_argument("--threads", type=int, help="of torch (default: as params.yaml says)")
    parser.add_argument("--root", type=Path, default=Path(), help="folder of params.yaml (default: the current one)")
    chosen = parser.parse_args(arguments)
    subject = load_subject(chosen.root, threads=chosen.threads)
    config = CASES[chosen.case].config(subject.num_layers)
    rows = subject.rows(chosen.prompt, ROWS)
    training = _training(chosen.side, subject, config, rows, batch=chosen.batch)
    built = peak_memory()
    for _ in range(STEPS):
        training.step()
    cuda = subject.base.device.type == "cuda"
    device_peak = torch.cuda.max_memory_allocated(subject.base.device) if cuda else None
    size = (chosen.case, chosen.batch, chosen.prompt)
    peak = max(built, peak_memory())  # Linux counts pages by batches, so a later reading may be a few pages lower
    print(json.dumps(asdict(MemoryFigures(chosen.side, *size, built, peak, device_peak))))


def _training(side: str, subject: Subject, config: ReftConfig, rows: Sequence[Encoded], *, batch: int) -> Training:
    fit = fit_config(batch, EPOCHS)
    if side == OURS:
        return OurTraining(subject.model(config), rows, fit, pad_id=subject.pad_id)
    return pyreft_training(pyreft_model(subject, config), subject, config, rows, fit)


if __name__ == "__main__":
    main()
