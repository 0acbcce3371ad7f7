"""What the cone saves, as the benchmark of answers counts it."""

from __future__ import annotations

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.quality.options import Operations
from reft.cone.keeper import ConeConfig, set_cone
from tests.reft.tiny import build_model, build_rows


def counted(model: object, rows: object) -> int:
    with torch.no_grad(), Operations() as operations:
        model.row_losses(rows, 0)  # type: ignore[attr-defined]
    return operations.total


def test_operations_are_those_of_torchs_counter() -> None:
    module, given = nn.Sequential(nn.Linear(3, 5), nn.Linear(5, 2, bias=False)), torch.ones(4, 3)
    with Operations() as operations:
        module(given).sum().backward()
    with FlopCounterMode(display=False) as counter:
        module(given).sum().backward()
    assert operations.total == counter.get_total_flops() > 0


def test_counting_leaves_the_cone_as_it_is() -> None:
    model, rows = build_model(layers=(1,), positions="l1"), build_rows(4)
    set_cone(model.base, ConeConfig(enabled=False))
    whole = counted(model, rows)
    set_cone(model.base, ConeConfig())
    counted(model, rows)  # keeps what does not change
    assert 0 < counted(model, rows) < whole / 2
