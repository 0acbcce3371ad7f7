"""How fast a device trains and writes: steps beside pyreft's and LoRA's, whole trainings, memory, and tokens."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

import torch

from benchmarks.cost.check import contenders, missing, operations, recipe_of, training
from benchmarks.cost.measured import measure_rates
from benchmarks.cost.step import Contender, Shape, rows_of, step
from benchmarks.cost.work import Rates
from benchmarks.gpu.bench import Bench, Figure
from benchmarks.sides.ours import CASES, OurTraining, Training, fit_config
from benchmarks.sides.timing import interleaved
from benchmarks.speed.peak import peak_memory
from reft import Encoded
from reft.batching.running import Prompt, Row, RunningBatch

BATCH, ROUNDS, BATCHES = 16, 5, 2
ADAPTERS = (0, 1, 16)
TINY = 24  # tokens of a prompt: pyreft edits seven at each end without a token in front


def rates(bench: Bench) -> Iterator[Figure]:
    """Measure the device's matrix and memory rates and what it takes to start a kernel."""
    yield asdict(_rates(bench))


def steps(bench: Bench) -> Iterator[Figure]:
    """Time first and warm steps of each recipe beside the others', and what share of the matrix rate they are."""
    subject, found = bench.large(), _rates(bench)
    shape = Shape.of(subject.base.config, next(subject.base.parameters()).element_size())
    highest = max(rate for _, rate in found.products)
    batch, rounds = (2, 1) if bench.tiny else (BATCH, ROUNDS)
    cases = [CASES["a"], CASES["d"]] if bench.tiny else list(CASES.values())
    for prompt, case in itertools.product((TINY,) if bench.tiny else (128, 512), cases):
        rows = subject.rows(prompt, batch * BATCHES)
        running: dict[Contender, Training] = {}
        config, first, left_out = case.config(subject.num_layers), {}, missing()
        for who in contenders():
            started = time.perf_counter()
            try:
                own = training(who, subject, config, rows, batch)
                own.step()
                first[who] = time.perf_counter() - started
                own.step()
                running[who] = own
            except Exception as error:
                if who == "ours":
                    raise
                left_out[who] = said(error)  # the others' figures are wanted all the more
        seconds = interleaved({who: each.step for who, each in running.items()}, repeats=rounds, warmup=0)
        for who in running:
            works = step(shape, recipe_of(config), rows_of(rows[:batch]), who)
            yield {
                "case": str(case),
                "prompt": prompt,
                "batch": batch,
                "contender": who,
                "first": first[who],
                "warm": seconds[who].median,
                "by the cost model": found.seconds(works),
                "share of the matrix rate": operations(works) / seconds[who].median / highest,
            }
        if left_out:
            yield {"case": str(case), "prompt": prompt, "left out": left_out}
        del running
        bench.tidy()


def memory(bench: Bench) -> Iterator[Figure]:
    """Take steps of recipe (a) of each contender, and tell the most memory that they took beside the base's."""
    subject = bench.large()
    rows, batch = subject.rows(TINY if bench.tiny else 512, 4), 2 if bench.tiny else 4
    for who in contenders():
        bench.tidy()
        before = _held(bench)
        try:
            own = training(who, subject, CASES["a"].config(subject.num_layers), rows, batch)
            for _ in range(2):
                own.step()
        except Exception as error:
            if who == "ours":
                raise
            yield {"contender": who, "left out": said(error)}
            continue
        yield {"contender": who, "base": before, "peak": _peak(bench), "of": _memory_of(bench)}
        del own


def whole(bench: Bench) -> Iterator[Figure]:
    """Train 1,000 rows for three epochs, and tell the rows a second of each."""
    subject = bench.large()
    count, epochs, batch, prompt = (8, 2, 4, TINY) if bench.tiny else (1000, 3, BATCH, 128)
    for case in (CASES["d"], CASES["a"]):
        started = time.perf_counter()
        rows, config = subject.rows(prompt, count), fit_config(batch, epochs)
        own = OurTraining(subject.model(case.config(subject.num_layers)), rows, config, pad_id=subject.pad_id)
        for epoch in range(epochs):
            for _ in range(-(-count // batch)):
                own.step()
            now = time.perf_counter()
            yield {"case": str(case), "epoch": epoch + 1, "rows": count, "rows a second": count / (now - started)}
            started = now
        del own
        bench.tidy()


def tokens(bench: Bench) -> Iterator[Figure]:
    """Continue prompts together under no adapter, one, and one each, and tell the tokens a second."""
    subject = bench.large()
    rows, length, prompt = (4, 3, TINY) if bench.tiny else (16, 64, 128)
    prompts = subject.rows(prompt, rows, completion=0)
    config = CASES["d"].config(subject.num_layers)
    models = [subject.model(config, base=subject.base).eval() for _ in range(min(rows, max(ADAPTERS)))]
    for count in sorted({min(each, rows) for each in ADAPTERS}):
        chosen = [models[place % count] if count else None for place in range(rows)]
        for warm in (False, True):
            started = time.perf_counter()
            written = _continue(subject.base, prompts, chosen, length)
            taken = time.perf_counter() - started
            if warm:
                yield {"adapters": count, "prompts": rows, "tokens": written, "tokens a second": written / taken}


def _continue(base: Any, prompts: list[Encoded], adapters: list[Any], length: int) -> int:
    running = RunningBatch(base)
    own = zip(prompts, adapters, strict=True)
    written = len(running.admit([Row(Prompt(prompt.input_ids, each, length)) for prompt, each in own]))
    while running.rows:
        written += len(running.step())
    return written


def said(error: Exception) -> str:
    """Return an error's kind and words."""
    return f"{type(error).__name__}: {error}"


def _rates(bench: Bench) -> Rates:
    config = bench.large().base.config
    largest, seconds = (64, 0.001) if bench.tiny else (4096, 0.05)
    return measure_rates(
        bench.device,
        bench.dtype,
        inner=int(config.hidden_size),
        columns=int(config.intermediate_size),
        vocabulary=int(config.vocab_size),
        seconds=seconds,
        largest=largest,
    )


def _held(bench: Bench) -> int:
    return torch.cuda.memory_allocated(bench.device) if bench.device.type == "cuda" else peak_memory()


def _peak(bench: Bench) -> int:
    return torch.cuda.max_memory_allocated(bench.device) if bench.device.type == "cuda" else peak_memory()


def _memory_of(bench: Bench) -> str:
    return "the device" if bench.device.type == "cuda" else "the process, whose peak never falls"
