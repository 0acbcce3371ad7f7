"""Where the time of a training step goes, by kind of operation, and what lies between its operations and its time.

Were time a matter of operations alone, a step would take its operations at the quicker side's rate of products. What it
takes longer is told by kind: products at a lower rate, everything that is no product, and Python between them.
"""

from __future__ import annotations

import re
import resource
import statistics
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from torch.profiler import ProfilerActivity, profile, record_function

from benchmarks.sides.ours import Case, Subject, Training, fit_config
from benchmarks.speed.agreement import matched
from benchmarks.speed.beside import counted
from benchmarks.speed.steps import BATCHES, EPOCHS, OURS, PYREFT

STEP = "a step"
FIRST = "aten::embedding"  # with which a base begins
COLLATION = "collation: all before the base runs"
OTHER = "other operations"
PYTHON = "between operations: Python, the profiler"
PRODUCTS = ("matrix products", "products of attention")
GROUPS = {
    "optimizer": r"Optimizer\.|fused_adam|_foreach_norm|clip_grad",
    "rotations": r"_Turned|linalg_qr|LinalgQr|householder|Householder|orgqr|triangular|Triangular|linalg_solve",
    "loss": r"cross_entropy|log_softmax|LogSoftmax|nll_loss|NllLoss",
    "products of attention": r"scaled_dot_product|ScaledDotProduct|flash_attention|aten::(bmm|baddbmm)\b",
    "softmax of attention": r"softmax|Softmax",
    "matrix products": r"aten::(mm|addmm)\b",
    "choosing and placing rows": r"index_select|IndexSelect|index_copy|IndexCopy|index_add|aten::index\b|IndexBackward"
    r"|gather|Gather|scatter|Scatter|index_put|IndexPut",
    "norms, rotary embeddings, gates and sums": r"aten::(mul|add|sub|rsub|div|neg|pow|mean|sum|rsqrt|silu|silu_backward"
    r"|cos|sin|sigmoid|exp|sqrt|square|where|masked_fill|eq|ne|le|lt|ge|gt|bitwise_\w+|logical_\w+|cumsum|clamp|abs"
    r"|max|min|maximum|minimum|norm|linalg_vector_norm|any|all|is_nonzero|gelu|tanh|relu|dot)_?\b",
    "copies, joins and zeros": r"aten::(copy_|cat|clone|contiguous|fill_|zero_|zeros|ones|empty\w*|_to_copy|to|stack"
    r"|resize_|new_zeros|new_empty\w*|zeros_like|ones_like|full\w*|detach|repeat|expand|arange|constant_pad_nd|pad"
    r"|narrow_copy|slice_backward|select_backward|split\w*|triu\w*|tril\w*|eye\w*|diag\w*|lift_fresh)\b",
    "views and shapes": r"aten::(view|_unsafe_view|_reshape_alias|reshape|transpose|t|permute|as_strided|slice|select"
    r"|unsqueeze|squeeze|unbind|flatten|unflatten|matmul|linear|alias|item|_local_scalar_dense|_conj|resolve_\w+"
    r"|conj|chunk|narrow|movedim|swapaxes|mT|adjoint|numpy_T|embedding\w*|is_\w+|result_type|set_|view_as)\b",
    "autograd's engine": r"autograd::|Backward\d*\b|AccumulateGrad",
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


@dataclass(frozen=True)
class Profile:
    """Where a side's step goes.

    Attributes:
        seconds: of a step without the profiler, the median.
        profiled: of one with it, on average; the shares add up to it.
        shares: of the operations, and of what is between them.
        operations: of matrix products in a step.
        kernel: seconds of a step that the operating system took of it.
        faults: pages that a step was given anew.
    """

    seconds: float
    profiled: float
    shares: tuple[Share, ...]
    operations: int
    kernel: float
    faults: float

    @property
    def rate(self) -> float:
        """Operations a second of the step's products."""
        return self.operations / sum(each.seconds for each in self.shares if each.group in PRODUCTS)

    def beyond(self, rate: float) -> dict[str, float]:
        """Return by kind the seconds that the step takes longer than its operations at a rate; they add up to all."""
        parts = {each.group: each.seconds for each in self.shares if each.group not in PRODUCTS}
        products = sum(each.seconds for each in self.shares if each.group in PRODUCTS)
        return {"products at a lower rate": products - self.operations / rate, **parts}


@dataclass(frozen=True)
class Gap:
    """What lies between operations and times.

    Attributes:
        ours: our step.
        pyreft: pyreft's.
    """

    ours: Profile
    pyreft: Profile

    @property
    def rate(self) -> float:
        """Operations a second of the quicker side's products."""
        return max(self.ours.rate, self.pyreft.rate)

    @property
    def told(self) -> float:
        """The share of what our step takes beyond its operations that has a name."""
        beyond = self.ours.beyond(self.rate)
        return 1 - beyond.get(OTHER, 0.0) / sum(beyond.values())


def profile_pair(subject: Subject, case: Case, *, batch: int, prompt: int, steps: int) -> Gap:
    """Run warm steps of both sides in turn, without torch's profiler and then under it.

    On an accelerator the seconds are those of its kernels, and what lies between operations is the time that it waits.
    """
    config, rows = case.config(subject.num_layers), subject.rows(prompt, batch * BATCHES)
    pair = matched(subject, config, rows, fit_config(batch, EPOCHS))
    both: dict[str, Training] = {OURS: pair.ours, PYREFT: pair.pyreft}
    operations = {who: counted(training) for who, training in both.items()}
    taken: dict[str, list[tuple[float, float, float]]] = {who: [] for who in both}
    for _ in range(steps):
        for who, training in both.items():
            taken[who].append(_taken(training))
    found = {}
    for who, training in both.items():
        seconds, kernel, faults = (statistics.median(each) for each in zip(*taken[who], strict=True))
        under, events = _profiled(subject, training, steps)
        own = shares(events, wall=under, steps=steps, on_device=subject.base.device.type == "cuda")
        found[who] = Profile(seconds, under, tuple(own), operations[who], kernel, faults)
    return Gap(found[OURS], found[PYREFT])


def _taken(training: Training) -> tuple[float, float, float]:
    """Return the seconds of a step, those of the operating system in it, and the pages that it was given."""
    before, started = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
    training.step()
    seconds, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_SELF)
    return seconds, after.ru_stime - before.ru_stime, after.ru_minflt - before.ru_minflt


def _profiled(subject: Subject, training: Training, steps: int) -> tuple[float, Any]:
    """Return the seconds of a step under the profiler, and the events of all of them."""
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if subject.base.device.type == "cuda" else [])]
    with profile(activities=activities) as found:
        started = time.perf_counter()
        for _ in range(steps):
            with record_function(STEP):
                training.step()
        wall = time.perf_counter() - started
    return wall / steps, found.events()


def shares(events: Any, *, wall: float, steps: int, on_device: bool) -> list[Share]:
    """Group events, each with its own time without what it calls; the rest of ``wall`` seconds is between them.

    On a CPU all that lies in a step before its base begins is one group, Python included. A base is given no hook that
    would tell its beginning: with one it has no constants.
    """
    times: dict[str, Counter[str]] = {group: Counter() for group in (COLLATION, *GROUPS, OTHER)}
    before = [] if on_device else list(_before_base(events))
    for start, end in before:
        times[COLLATION][COLLATION] += (end - start) / 1e6 / steps
    for event in events:
        if event.name == STEP or any(start <= event.time_range.start < end for start, end in before):
            continue
        own = event.self_device_time_total if on_device else event.self_cpu_time_total
        times[_group(event)][event.name] += own / 1e6 / steps
    found = [Share(group, sum(named.values()), tuple(named.most_common(3))) for group, named in times.items() if named]
    between = wall - sum(share.seconds for share in found)
    return sorted([*found, Share(PYTHON, between, ())], key=lambda share: -share.seconds)


def _before_base(events: Any) -> Iterator[tuple[Any, Any]]:
    """Yield from when to when each step ran what comes before its base, in microseconds."""
    begins = sorted(event.time_range.start for event in events if event.name == FIRST)
    for event in events:
        if event.name == STEP:
            inside = (each for each in begins if event.time_range.start <= each < event.time_range.end)
            yield event.time_range.start, next(inside, event.time_range.start)


def _group(event: Any) -> str:
    names = []
    while event is not None:
        names.append(event.name)
        event = event.cpu_parent
    calls = " ".join(names)
    return next((group for group, pattern in GROUPS.items() if re.search(pattern, calls)), OTHER)
