"""How the next token of each row is chosen from its logits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from reft.data import to_device


@dataclass(frozen=True)
class Sampling:
    """How tokens are chosen; the defaults are greedy.

    Attributes:
        temperature: divisor of the logits when drawing; 0 takes the likeliest token.
        top_p: share of the probability drawn from.
        seed: of the draws of one row, which follow from it and the row's logits alone.
        alternatives: how many of the likeliest tokens have their log-probabilities told beside the chosen one's; None
            for no log-probabilities at all.
    """

    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0
    alternatives: int | None = None

    def generator(self) -> torch.Generator | None:
        """Return what a row draws from; None for a greedy one."""
        return torch.Generator().manual_seed(self.seed) if self.temperature > 0 else None


@dataclass(frozen=True)
class Chosen:
    """A chosen token.

    Attributes:
        id: its id; -1 where the logits are no numbers.
        logprob: its log-probability under the model itself, whatever the temperature, in nats; None if not asked for.
        alternatives: the likeliest tokens and their log-probabilities, likeliest first.
    """

    id: int
    logprob: float | None = None
    alternatives: tuple[tuple[int, float], ...] = ()


def choose(logits: Tensor, samplings: Sequence[Sampling], generators: Sequence[torch.Generator | None]) -> list[Chosen]:
    """Choose a token for each row.

    Args:
        logits: [rows, vocabulary].
        samplings: of each row.
        generators: of each row that draws.
    """
    logits = logits.float()
    best = logits.max(-1)
    ids, are_finite = torch.stack([best.indices, best.values.isfinite().long()]).tolist()  # one wait for a device
    for row, finite in enumerate(are_finite):
        generator = generators[row]
        if not finite:
            ids[row] = -1
        elif generator is not None:
            ids[row] = _draw(logits[row].double().cpu(), samplings[row], generator)
    told = [row for row, sampling in enumerate(samplings) if sampling.alternatives is not None and ids[row] >= 0]
    known = dict(zip(told, _log_probabilities(logits, told, ids, samplings), strict=True))
    return [known.get(row) or Chosen(token) for row, token in enumerate(ids)]


def _draw(logits: Tensor, sampling: Sampling, generator: torch.Generator) -> int:
    """Draw one token by its place in the cumulated probabilities, likeliest first: one draw for one token."""
    # From the largest, so that a small temperature makes zeros of the others and no infinity of it.
    ordered, ids = ((logits - logits.max()) / sampling.temperature).softmax(-1).sort(descending=True, stable=True)
    before = ordered.cumsum(-1) - ordered
    ordered = ordered.masked_fill(before >= sampling.top_p, 0.0)  # the first stays, since nothing is before it
    ends = ordered.cumsum(-1)
    drawn = torch.rand((), generator=generator, dtype=torch.float64) * ends[-1]
    place = torch.searchsorted(ends, drawn, right=True).clamp(max=int(ordered.count_nonzero()) - 1)
    return int(ids[place])


def _log_probabilities(
    logits: Tensor, rows: Sequence[int], ids: Sequence[int], samplings: Sequence[Sampling]
) -> list[Chosen]:
    if not rows:
        return []
    known = logits.index_select(0, to_device(torch.tensor(rows), logits.device)).log_softmax(-1)
    own = known.gather(-1, to_device(torch.tensor([[ids[row]] for row in rows]), known.device))[:, 0].tolist()
    most = max(samplings[row].alternatives or 0 for row in rows)
    top = known.topk(min(most, known.shape[-1]), dim=-1)
    pairs = zip(top.indices.tolist(), top.values.tolist(), strict=True)
    return [
        Chosen(ids[row], logprob, tuple(zip(tokens, values, strict=True))[: samplings[row].alternatives])
        for row, logprob, (tokens, values) in zip(rows, own, pairs, strict=True)
    ]
