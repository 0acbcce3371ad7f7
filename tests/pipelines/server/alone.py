"""What a model says when nobody else is in the batch."""

from __future__ import annotations

import torch
from torch import Tensor

from pipelines.server.service import Service
from reft import encode
from reft.data import Batch


def alone(service: Service, name: str, prompt: str, count: int, *, ends: bool = False) -> list[Tensor]:
    """Log-probabilities [vocabulary] of each greedy token, by whole passes without a cache.

    Args:
        service: that serves the model.
        name: of the model.
        prompt: a text.
        count: of tokens.
        ends: whether the tokenizer's end token is the last one.
    """
    served = service.shelf.open(name)
    model = served.adapter if served is not None else service.shelf.live["champion"].adapter
    ids = torch.tensor([encode(service.base.tokenizer, prompt, "").input_ids])
    length, known = torch.tensor([ids.shape[1]]), []
    for _ in range(count):
        with torch.no_grad():
            batch = Batch(ids, torch.ones_like(ids), ids, length)
            if served is None:
                with model.disabled():
                    logits = model.logits(batch)
            else:
                logits = model.logits(batch)
        known.append(logits[0, -1].float().log_softmax(-1))
        best = int(known[-1].argmax())
        if ends and best == service.base.tokenizer.eos_token_id:
            break
        ids = torch.cat([ids, torch.tensor([[best]])], dim=-1)
    return known
