"""Trainings that are run by one process and by several: ``torchrun ... -m tests.reft.processes FOLDER``."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from itertools import islice
from pathlib import Path
from typing import Any

import safetensors.torch
import torch

from reft.models.adapted import AdaptedModel, Row
from reft.training.fit import fit
from reft.training.schedule import FitConfig
from tests.reft.tiny import (
    build_encoder,
    build_labelled,
    build_model,
    build_pairs,
    build_rows,
    build_seq2seq,
    build_uneven_fit,
    values,
)

CONFIG = build_uneven_fit(checkpoint_every=2)  # of 13 rows: an epoch's last batch has one, so one of two processes none

ROW = build_rows(1)[0]
CASES: dict[str, tuple[Callable[[], AdaptedModel], Sequence[Row], FitConfig]] = {
    "decoder": (lambda: build_model(tied=False), build_rows(13), CONFIG),
    "recomputed": (lambda: build_model(method="direft"), build_rows(13), replace(CONFIG, gradient_checkpointing=True)),
    "encoder": (lambda: build_encoder(), build_labelled(13), CONFIG),
    "encoder-decoder": (lambda: build_seq2seq(), build_pairs(13), CONFIG),
    "rarely reached": (lambda: build_model(positions="6:9"), build_rows(13), CONFIG),
    "dropped": (lambda: build_model(dropout=0.3), build_rows(13), CONFIG),
    "twins": (lambda: build_model(dropout=0.3), 2 * [ROW], replace(CONFIG, epochs=1, batch_size=2)),
}


def train(case: str, checkpoint: Path | None = None, stop: int | None = None) -> dict[str, Any]:
    """Run one case and return losses and trained values."""
    build, rows, config = CASES[case]
    model = build()
    steps = list(islice(fit(model, rows, config, pad_id=0, checkpoint=checkpoint), stop))
    return {"steps": [asdict(step) for step in steps], "values": values(model)}


def main(folder: Path) -> None:
    """Run every case, and one that is stopped and goes on; leave each process's results in ``folder``."""
    torch.set_num_threads(1)
    results = {case: train(case) for case in CASES}
    train("decoder", folder / "checkpoints", stop=3)
    results["resumed"] = train("decoder", folder / "checkpoints")
    rank = os.environ["RANK"]
    tensors = {f"{case}/{name}": value for case in results for name, value in results[case]["values"].items()}
    safetensors.torch.save_file(tensors, folder / f"{rank}.safetensors")
    (folder / f"{rank}.json").write_text(json.dumps({case: results[case]["steps"] for case in results}))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
