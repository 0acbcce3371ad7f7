"""Without the cone a ReFT model, a rival and the frozen base are scored by the same passes."""

from __future__ import annotations

import pytest
import torch

from reft.adapters.any_method import build_method
from reft.cone.keeper import ConeConfig, set_cone
from reft.models.scoring import score_choices
from reft.peers.lora import LoraConfig
from tests.reft.tiny import build_base, build_config, build_rows

PROMPTS = [row.prompt_ids for row in build_rows(12)]
CHOICES = [(5,), (9,), (11, 3)]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_untrained_methods_score_as_the_base_to_the_last_bit(dtype: torch.dtype) -> None:
    """LoReFT starts at the identity and LoRA at a product of zero, so the weights are the base's."""
    base = build_base().to(dtype)
    set_cone(base, ConeConfig(enabled=False))
    edited = build_method(base, build_config(positions="l2", init="identity"), seed=1)
    scores = [score_choices(edited, PROMPTS, CHOICES, batch_size=5)]
    with edited.disabled():
        scores.append(score_choices(edited, PROMPTS, CHOICES, batch_size=5))
    lora = build_method(base, LoraConfig((0, 1), ("q_proj",), 2, 4.0, 0.0), seed=1)
    scores.append(score_choices(lora, PROMPTS, CHOICES, batch_size=5))
    assert torch.equal(scores[0], scores[1])
    assert torch.equal(scores[0], scores[2])
