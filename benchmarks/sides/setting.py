"""What is said before a measurement: what its figures depend on beside the code, and about how long it takes."""

from __future__ import annotations

import platform
import time
from importlib.metadata import version

import torch

from benchmarks.sides.others import floor_training
from benchmarks.sides.ours import Case, Subject, fit_config
from pipelines.runtime.machine import this_machine

PACKAGES = ("torch", "transformers", "pyreft", "pyvene", "peft")
ROWS, PROMPT = 8, 110  # of the step that the estimate goes by


def announce(subject: Subject, work: float) -> dict[str, str]:
    """Print the setting and an estimate of the time; return the setting.

    Args:
        subject: base and text.
        work: about how many tokens' worth of plain training of all layers is ahead.
    """
    cores = this_machine().cores
    setting = {
        "base": subject.name,
        "rows": f"windows of running text, from {subject.text.origin}",
        "machine": f"{cores} cores, {torch.get_num_threads()} threads, {platform.machine()}, {subject.base.device}",
        "packages": ", ".join(f"{package} {version(package)}" for package in PACKAGES),
    }
    print("\n".join(f"- {name}: {value}" for name, value in setting.items()), flush=True)
    print(f"- time: about {work * seconds_per_token(subject) / 60:.0f} minutes\n", flush=True)
    return setting


def seconds_per_token(subject: Subject) -> float:
    """Return about what plain training of all layers takes for a token: a step without trained parts, once warm."""
    rows = subject.rows(PROMPT, ROWS)
    config = Case("", "all", "l1", 1).config(subject.num_layers)
    training = floor_training(subject, config, rows, fit_config(ROWS, epochs=2))
    training.step()
    started = time.perf_counter()
    training.step()
    return (time.perf_counter() - started) / sum(row.num_tokens for row in rows)
