"""Trains tiny models of every kind on the CPU and on the simulated device."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any
from unittest.mock import patch

import torch

from reft.cone.fingerprint import Base, content
from reft.cone.keeper import ConeConfig, keeper_of, set_cone
from reft.data import Encoded
from reft.edits.config import ReftConfig
from reft.models.decoder import ReftModel
from reft.models.encoder import Labelled, ReftEncoder
from reft.models.seq2seq import Paired, ReftSeq2Seq
from reft.peers.lora import LoraConfig
from reft.peers.model import PeerModel
from reft.training.contrast import Question
from reft.training.fit import fit
from tests.reft.tiny import build_base, build_encoder_base, build_fit, build_t5
from tests.simulated.device import BACKEND, WAITS

CONFIG = ReftConfig((0, 1, 2), "f2+l2", 2, init="paper")
LATE = ReftConfig((1, 2), "l2", 2, init="paper")
LORA = LoraConfig((0, 1, 2), ("q_proj", "v_proj"), 2, 4.0)


def rows(length: int) -> list[Encoded]:
    """Return eight rows of about so many tokens."""
    return [
        Encoded(tuple((7 * row + 3 * place) % 60 for place in range(length + row % 3)), length - 4) for row in range(8)
    ]


def questions() -> list[Question]:
    """Return questions with two options each."""
    return [Question((row, Encoded((*row.prompt_ids, 5), row.prompt_length)), 0, (1.0, 1.0)) for row in rows(10)]


def decoder(config: ReftConfig, device: torch.device, *, cone: bool = True) -> Any:
    """Return a decoder with edits."""
    base: Any = build_base().to(device)
    set_cone(base, ConeConfig(enabled=cone))
    return ReftModel(base, config, seed=0)


CASES: dict[str, tuple[Callable[[torch.device], Any], Callable[[], Sequence[Any]]]] = {
    "edits at the prompts' ends": (lambda device: decoder(CONFIG, device), lambda: rows(12)),
    "edits behind kept keys": (lambda device: decoder(LATE, device), lambda: rows(12)),
    "prompts above what attention keeps scores of": (lambda device: decoder(CONFIG, device), lambda: rows(280)),
    "questions": (lambda device: decoder(LATE, device), questions),
    "whole rows": (lambda device: decoder(LATE, device, cone=False), lambda: rows(12)),
    "LoRA": (lambda device: PeerModel(build_base().to(device), LORA, seed=0), lambda: rows(12)),
    "an encoder": (
        lambda device: ReftEncoder(build_encoder_base().to(device), LATE, seed=0),
        lambda: [Labelled(row.input_ids, float(place % 2)) for place, row in enumerate(rows(12))],
    ),
    "an encoder-decoder": (
        lambda device: ReftSeq2Seq(build_t5().to(device), LATE, seed=0),
        lambda: [Paired(row.input_ids, (5, 6, 1)) for row in rows(12)],
    ),
}


def train(case: str, device: torch.device) -> dict[str, Any]:
    """Train two epochs; return the losses, and what waited for the device in the last step."""
    build, data = CASES[case]
    torch.manual_seed(0)
    model, losses = build(device), []
    WAITS.clear()
    for step in fit(model, data(), build_fit(), pad_id=0):
        losses.append(step.loss)
        if step.step < step.total_steps:
            WAITS.clear()
    return {"losses": losses, "waits": list(WAITS), "copied": keeper_of(model.base).copies.nbytes}


def seen_change(device: torch.device) -> bool:
    """Whether a change of one weight through ``.data`` changes what tells a base's content."""
    base: Any = build_base().to(device)
    before = content(Base.of(base, ()))
    base.get_output_embeddings().weight.data[3, 5] += 1e-3
    return content(Base.of(base, ())) != before


def observe(device: torch.device) -> dict[str, Any]:
    """Return what was seen of each case on the CPU and on the device, and of a device without free memory."""
    cases = {case: {"cpu": train(case, torch.device("cpu")), "device": train(case, device)} for case in CASES}
    with patch.object(BACKEND, "free", 0):
        full = train("edits behind kept keys", device)
    return {"cases": cases, "no room": full, "seen change": seen_change(device)}
