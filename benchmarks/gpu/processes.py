"""Two processes on two devices: that a training's losses are one process's, and how much faster it is."""

from __future__ import annotations

import json
import os
import socket
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import torch

from benchmarks.gpu.bench import Bench, Figure, demand
from benchmarks.sides.ours import CASES, OurTraining, fit_config

COUNT = 2
CLOSE = 1e-3  # of a loss: the processes' shares add up in another order


def two(bench: Bench) -> Iterator[Figure]:
    """Train on one device and on two."""
    found = torch.cuda.device_count() if bench.device.type == "cuda" else 0
    if found < COUNT:
        yield {"left out": f"two processes need {COUNT} CUDA devices; there are {found}"}
        return
    yield beside_one(bench.device.type, tiny=bench.tiny)


def beside_one(device: str, *, tiny: bool) -> Figure:
    """Return losses and seconds of the same steps in one process and in two, each started anew."""
    runs = {count: _spawn(device, count, tiny=tiny) for count in (1, COUNT)}
    figure: Figure = {"one": runs[1], "two": runs[COUNT]}
    pairs = zip(runs[1]["losses"], runs[COUNT]["losses"], strict=True)
    apart = max(abs(one - other) for one, other in pairs)
    return demand(apart <= CLOSE, "two processes have one's losses", figure | {"apart": apart})


def _spawn(device: str, count: int, *, tiny: bool) -> Figure:
    import torch.multiprocessing as processes

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "figure.json"
        processes.spawn(_train, (count, port, device, tiny, str(out)), nprocs=count)
        figure: Figure = json.loads(out.read_text(encoding="utf-8"))
    return figure


def _train(rank: int, count: int, port: int, device: str, tiny: bool, out: str) -> None:
    """Take steps in one of the processes; the first one writes what it saw."""
    names = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": count, "MASTER_PORT": port}
    if count > 1:
        os.environ.update({name: str(value) for name, value in names.items()}, MASTER_ADDR="127.0.0.1")
    own = torch.device(device, rank) if device == "cuda" else torch.device(device)
    if own.type == "cuda":
        torch.cuda.set_device(own)
    bench = Bench(own, tiny)
    subject = bench.small(bench.dtype)
    rows, batch = subject.rows(40, 16), 8
    training = OurTraining(
        subject.model(CASES["d"].config(subject.num_layers)), rows, fit_config(batch, 6), pad_id=subject.pad_id
    )
    losses = [training.step() for _ in range(4)]
    started = time.perf_counter()
    losses += [training.step() for _ in range(8)]
    if rank == 0:
        figure = {"losses": losses, "seconds a step": (time.perf_counter() - started) / 8}
        Path(out).write_text(json.dumps(figure), encoding="utf-8")
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
