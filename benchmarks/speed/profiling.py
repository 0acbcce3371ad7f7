"""Where the time of a training step goes, by kind of operation."""

from __future__ import annotations

import re
import time
from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from torch.profiler import ProfilerActivity, profile, record_function

from benchmarks.sides.ours import Case, OurTraining, Subject, fit_config
from benchmarks.speed.steps import BATCHES, EPOCHS

COLLATION = "collation: all before the base runs"
OTHER = "other operations"
PYTHON = "between operations"
GROUPS = {
    COLLATION: re.escape(COLLATION),
    "optimizer": r"Optimizer\.|fused_adam|_foreach_norm|clip_grad",
    "QR": r"linalg_qr|LinalgQr|householder|orgqr",
    "attention": r"scaled_dot_product|ScaledDotProduct|flash_attention",
    "matrix products": r"aten::(mm|addmm|bmm|baddbmm)\b",
    "loss": r"cross_entropy|log_softmax|LogSoftmax|nll_loss|NllLoss",
    "choosing and placing rows": r"index_select|IndexSelect|index_copy|IndexCopy|index_add|aten::index\b|IndexBackward",
}
"""A group's operations, by themselves or by one that calls them; the first group that fits takes an operation."""


@dataclass(frozen=True)
class Share:
    """Seconds of a step that one kind of operation took.

    Attributes:
        group: the kind.
        seconds: a step, on average.
        most: the costliest operations of it, with their seconds.
    """

    group: str
    seconds: float
    most: tuple[tuple[str, float], ...]


def profile_steps(subject: Subject, case: Case, *, batch: int, prompt: int, steps: int) -> list[Share]:
    """Run warm steps of this project under torch's profiler; the shares add up to the time of a step.

    On an accelerator the seconds are those of its kernels, and what lies between operations is the time that it waits.
    """
    model = subject.model(case.config(subject.num_layers))
    rows = subject.rows(prompt, batch * BATCHES)
    training = OurTraining(model, rows, fit_config(batch, EPOCHS), pad_id=subject.pad_id)
    for _ in range(BATCHES):
        training.step()
    cuda = subject.base.device.type == "cuda"
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if cuda else [])]
    mark = ExitStack()
    running = model.base.register_forward_pre_hook(lambda *_: mark.close())
    with profile(activities=activities) as found:
        started = time.perf_counter()
        for _ in range(steps):
            mark.enter_context(record_function(COLLATION))
            training.step()
        wall = time.perf_counter() - started
    running.remove()
    return shares(found.events(), wall=wall, steps=steps, on_device=cuda)


def shares(events: Any, *, wall: float, steps: int, on_device: bool) -> list[Share]:
    """Group events, each with its own time without what it calls; the rest of ``wall`` seconds is between them."""
    times: dict[str, Counter[str]] = {group: Counter() for group in (*GROUPS, OTHER)}
    for event in events:
        own = event.self_device_time_total if on_device else event.self_cpu_time_total
        times[_group(event)][event.name] += own / 1e6 / steps
    found = [Share(group, sum(named.values()), tuple(named.most_common(3))) for group, named in times.items() if named]
    between = wall / steps - sum(share.seconds for share in found)
    return sorted([*found, Share(PYTHON, between, ())], key=lambda share: -share.seconds)


def _group(event: Any) -> str:
    names = []
    while event is not None:
        names.append(event.name)
        event = event.cpu_parent
    calls = " ".join(names)
    return next((group for group, pattern in GROUPS.items() if re.search(pattern, calls)), OTHER)
